"""How long a script takes from its last line to its end, ours beside upstream's distro, collector or not.

The script makes one span, one log record and one counter, as `opentelemetry-instrument` runs it. Each run is
a process of its own; the report gives the middle of the times.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_concurrency.config import Config
from otel_concurrency.console.receiver import Receiver
from otel_concurrency.console.store import Store

SCRIPT = """
import logging, time
from opentelemetry import metrics, trace

with trace.get_tracer("script").start_as_current_span("work"):
    logging.getLogger("script").warning("done")
    metrics.get_meter("script").create_counter("done").add(1)
print(time.time(), flush=True)
"""
PROTOCOLS = ("http/protobuf", "grpc")
DISTROS = {
    "ours": {},
    "upstream": {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"},
}
COLLECTORS = ("answers", "refuses", "never answers")
# The SDK and the exporters are compared; the other instrumentors only make the start longer.
FEW = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi,concurrency_fastapi,celery,aiohttp-client"}


@dataclass(frozen=True, slots=True)
class Effort:
    """How often to measure: runs of each kind."""

    runs: int


FULL, QUICK = Effort(3), Effort(1)


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure every combination; return the report and its values, in seconds."""
    values: dict[str, Any] = {}
    lines = [
        "## The end of a script",
        "",
        f"Seconds from the last line to the end of the process, the middle of {effort.runs}.",
        f"Our time limit is {Config().exit_timeout:g} s.",
        "",
        f"| the collector | {' | '.join(DISTROS)} |",
        f"|---|{'---:|' * len(DISTROS)}",
    ]
    for collector in COLLECTORS:
        for protocol in PROTOCOLS:
            with _endpoint(collector, protocol) as endpoint:
                times = {
                    name: [_time(name, endpoint, protocol) for _ in range(effort.runs)] for name in DISTROS
                }
            values[f"{collector} {protocol}"] = times
            cells = " | ".join(f"{statistics.median(each):.2f}" for each in times.values())
            lines.append(f"| {collector}, {protocol} | {cells} |")
    return "\n".join(lines), values


def _time(distro: str, endpoint: str, protocol: str) -> float:
    foreign = ("OTEL_", "PYTHONPATH")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environ |= DISTROS[distro] | FEW
    environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    command = [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    return time.time() - float(done.stdout)


@contextmanager
def _endpoint(collector: str, protocol: str) -> Iterator[str]:
    if collector == "answers":
        with Store() as store, Receiver(store, http_port=0, grpc_port=0) as receiver:
            yield receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
        return
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if collector == "never answers":
            bound.listen(64)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
