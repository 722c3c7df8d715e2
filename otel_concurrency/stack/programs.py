"""How each program of the stack is started, what it listens on, and which answers make it ready.

Every address is loopback and every port is chosen by us; nothing else differs from what a user runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_concurrency.stack.paths import CONFIGURATION

LOOPBACK = "127.0.0.1"

Ports = Mapping[str, int]

USUAL_PORTS = {
    "otlp_grpc": 4317,
    "otlp_http": 4318,
    "collector_health": 13133,
    "jaeger_otlp": 14317,
    "jaeger_http": 16686,
    "jaeger_grpc": 16685,
    "jaeger_health": 13134,
    "prometheus": 9090,
    "loki": 3100,
    "loki_grpc": 9096,
}
"""Where people look for them, by name."""

# Variables that would change what the programs do: their own SDK reads OTEL_*, their clients the proxies.
UNWANTED_PREFIXES = ("OTEL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the stack.

    Attributes:
        name: The recipe's name, and the name in the state file.
        arguments: Makes the arguments from the ports and the folder for its data.
        environ: Makes the variables that its configuration file reads, from the same.
        ready_urls: Each answers 200 once the program is ready, and not before.
    """

    name: str
    arguments: Callable[[Ports, Path], list[str]]
    environ: Callable[[Ports, Path], dict[str, str]]
    ready_urls: Callable[[Ports], tuple[str, ...]]


def url(port: int, path: str = "") -> str:
    """Return an HTTP address on loopback."""
    return f"http://{LOOPBACK}:{port}{path}"


def endpoints(ports: Ports) -> dict[str, str]:
    """Return the addresses that users and tests of the stack need, by name."""
    return {
        "otlp_grpc": url(ports["otlp_grpc"]),
        "otlp_http": url(ports["otlp_http"]),
        "jaeger": url(ports["jaeger_http"]),
        "jaeger_otlp": f"{LOOPBACK}:{ports['jaeger_otlp']}",
        "prometheus": url(ports["prometheus"]),
        "loki": url(ports["loki"]),
    }


def program_environ(program: Program, ports: Ports, data: Path) -> dict[str, str]:
    """Return the whole environment of a program: ours without what would change it, plus its ports."""
    unwanted = [name for name in os.environ if name.upper().startswith(UNWANTED_PREFIXES)]
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, **program.environ(ports, data)}


PROGRAMS = (
    Program(
        "jaeger",
        arguments=lambda ports, data: [f"--config={CONFIGURATION / 'jaeger.yaml'}"],
        environ=lambda ports, data: {
            "JAEGER_HOST": LOOPBACK,
            "JAEGER_OTLP_PORT": str(ports["jaeger_otlp"]),
            "JAEGER_HTTP_PORT": str(ports["jaeger_http"]),
            "JAEGER_GRPC_PORT": str(ports["jaeger_grpc"]),
            "JAEGER_HEALTH_PORT": str(ports["jaeger_health"]),
        },
        ready_urls=lambda ports: (
            url(ports["jaeger_health"], "/status"),
            url(ports["jaeger_http"], "/api/services"),
        ),
    ),
    Program(
        "prometheus",
        arguments=lambda ports, data: [
            f"--config.file={CONFIGURATION / 'prometheus.yaml'}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address={LOOPBACK}:{ports['prometheus']}",
            "--web.enable-otlp-receiver",
            "--enable-feature=exemplar-storage",
        ],
        environ=lambda ports, data: {},
        ready_urls=lambda ports: (url(ports["prometheus"], "/-/ready"),),
    ),
    Program(
        "loki",
        arguments=lambda ports, data: [
            f"-config.file={CONFIGURATION / 'loki.yaml'}",
            "-config.expand-env=true",
        ],
        environ=lambda ports, data: {
            "LOKI_HOST": LOOPBACK,
            "LOKI_PORT": str(ports["loki"]),
            "LOKI_GRPC_PORT": str(ports["loki_grpc"]),
            "LOKI_FOLDER": str(data),
        },
        ready_urls=lambda ports: (url(ports["loki"], "/ready"),),
    ),
    Program(
        "otelcol",
        arguments=lambda ports, data: [f"--config={CONFIGURATION / 'agent.yaml'}"],
        environ=lambda ports, data: {
            "AGENT_HOST": LOOPBACK,
            "AGENT_GRPC_PORT": str(ports["otlp_grpc"]),
            "AGENT_HTTP_PORT": str(ports["otlp_http"]),
            "AGENT_HEALTH_PORT": str(ports["collector_health"]),
            "AGENT_QUEUE_FOLDER": str(data / "queue"),
            "TRACES_ENDPOINT": f"{LOOPBACK}:{ports['jaeger_otlp']}",
            "PROMETHEUS_URL": url(ports["prometheus"]),
            "LOKI_URL": url(ports["loki"]),
        },
        ready_urls=lambda ports: (url(ports["collector_health"], "/"),),
    ),
)
