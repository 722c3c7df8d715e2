"""The receiver: OTLP over HTTP and gRPC at once, ready when both listen, gone when stopped."""

from __future__ import annotations

import socket

from otel_concurrency.console.grpc_receiver import GrpcReceiver
from otel_concurrency.console.http_receiver import HttpReceiver
from otel_concurrency.console.store import Store

HOST = "127.0.0.1"
"""Loopback only: nobody is asked for a password here."""

HTTP_PORT = 4318
GRPC_PORT = 4317
MAX_REQUEST_BYTES = 16 * 2**20


class PortTaken(OSError):  # noqa: N818  (a fact about the machine)
    """A port asked for is in use already.

    Args:
        protocol: `http` or `grpc`, which wanted it.
        port: The port.
    """

    def __init__(self, protocol: str, port: int) -> None:
        super().__init__(
            f"port {port} for OTLP/{protocol} is taken; ask for another one, or for 0: any free one"
        )
        self.protocol = protocol
        self.port = port


class Receiver:
    """Takes OTLP from exporters on this machine into a store, which stays open when the receiver stops.

    Args:
        store: Where it goes.
        http_port: A port, or 0 for a free one.
        grpc_port: A port, or 0 for a free one.
        max_request_bytes: Longest request, as sent and as decompressed.

    Raises:
        PortTaken: On entering: one of the ports asked for is not free.
    """

    def __init__(
        self,
        store: Store,
        *,
        http_port: int = HTTP_PORT,
        grpc_port: int = GRPC_PORT,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self.store = store
        self._asked_ports = (http_port, grpc_port)
        self._max_request_bytes = max_request_bytes
        self._http: HttpReceiver | None = None
        self._grpc: GrpcReceiver | None = None
        self._ports = (0, 0)

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"listening on {self.http_endpoint} and {self.grpc_endpoint}" if self._http else "not running"
        return f"<Receiver {state}>"

    @property
    def http_endpoint(self) -> str:
        """Return what to set `OTEL_EXPORTER_OTLP_ENDPOINT` to for HTTP; it stays known after a stop."""
        return f"http://{HOST}:{self._ports[0]}"

    @property
    def grpc_endpoint(self) -> str:
        """Return what to set `OTEL_EXPORTER_OTLP_ENDPOINT` to for gRPC; it stays known after a stop."""
        return f"http://{HOST}:{self._ports[1]}"

    def start(self) -> None:
        """Listen; returns when both protocols are served.

        Raises:
            PortTaken: One of the ports asked for is not free; then neither is served.
        """
        if self._http is not None:
            raise RuntimeError("the receiver runs already")
        http_port, grpc_port = self._asked_ports
        try:
            listener = socket.create_server((HOST, http_port))
        except OSError as error:
            raise PortTaken("http", http_port) from error
        self._http = HttpReceiver(self.store, listener, max_request_bytes=self._max_request_bytes)
        try:
            try:
                self._grpc = GrpcReceiver(
                    self.store, HOST, grpc_port, max_request_bytes=self._max_request_bytes
                )
            except OSError as error:
                raise PortTaken("grpc", grpc_port) from error
            self._grpc.start()
            self._http.start()
        except BaseException:
            self.stop()
            raise
        self._ports = (listener.getsockname()[1], self._grpc.port)

    def stop(self) -> None:
        """Finish the requests that are running, close both ports and join the threads; twice is fine."""
        for part in (self._grpc, self._http):
            if part is not None:
                part.stop()
        self._grpc = self._http = None
