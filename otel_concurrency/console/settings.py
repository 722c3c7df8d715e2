"""What the console was asked for: where its pages are served, where telemetry is taken, what it links to."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

HOST = "127.0.0.1"
PORT = 4319
"""The next one after OTLP's own two."""


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """A running console's settings; the pages are given them.

    Attributes:
        host: The address its pages are served on.
        port: The port of its pages.
        http_endpoint: Where OTLP/HTTP is taken, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
        grpc_endpoint: Where OTLP/gRPC is taken.
        path: The DuckDB file it keeps; none where its data goes with it.
        token: What a browser has to show once; none on loopback. The server in front of the pages checks it,
            and the headers `Host` and `Origin`: pages need not.
        jaeger_url: A Jaeger to link traces to; empty for none.
        grafana_url: A Grafana to link traces to; empty for none.
    """

    host: str = HOST
    port: int = PORT
    http_endpoint: str = ""
    grpc_endpoint: str = ""
    path: str | None = None
    token: str | None = None
    jaeger_url: str = ""
    grafana_url: str = ""

    @property
    def url(self) -> str:
        """Return where a browser on this machine finds it, without the token."""
        host = {"0.0.0.0": HOST, "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def entrance(self) -> str:
        """Return the URL that lets a person in, with the token if there is one."""
        return f"{self.url}?token={self.token}" if self.token else self.url


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
