"""What a service's callers notice when the backend is away, slow, or its collector stands still: latencies.

A FastAPI service exports to a real agent (`collector-config/agent.yaml`), that one to a real Jaeger,
Prometheus and Loki; between agent and Jaeger stands a relay that can be closed and slowed down. Requests come
at a fixed rate. Conditions take turns, round by round.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.relay import Relay, relay
from benchmarks.server import free_port, loaded, running_service
from otel_concurrency.stack import stack
from otel_concurrency.stack.paths import CONFIGURATION, binary_path, missing_binaries, stack_folder
from otel_concurrency.stack.pins import RECIPES

WELL = "all is well"
FAST = {
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_METRIC_EXPORT_INTERVAL": "2000",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
}
"""An export every half second: an outage that nobody exports into would prove nothing."""


class NotBuiltError(Exception):
    """The real programs are not there."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Turns of each condition.
        seconds: Length of a turn's load.
        rate: Requests a second.
    """

    rounds: int
    seconds: float
    rate: float


FULL = Effort(rounds=5, seconds=12.0, rate=300.0)
QUICK = Effort(rounds=2, seconds=5.0, rate=300.0)


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure every condition; return the report and its values, in seconds.

    Raises:
        NotBuiltError: `otel-concurrency stack build` has not been run.
    """
    if missing_binaries(stack_folder(), only=stack.STARTED):
        raise NotBuiltError("it needs the real programs: otel-concurrency stack build")
    values: dict[str, list[dict[str, float]]] = {}
    load = ("--seconds", str(effort.seconds), "--rate", str(effort.rate))
    with (
        tempfile.TemporaryDirectory() as folder,
        _backend(Path(folder)) as endpoints,
        relay(endpoints["jaeger_otlp"]) as way,
        _agent(Path(folder), endpoints, way.address) as (agent, port),
        running_service(Path(sys.executable).parent, port, FAST) as server,
    ):
        loaded(server.port, "--seconds", "3")  # caches, connections
        for number in range(effort.rounds):
            report.progress(f"outage: round {number + 1} of {effort.rounds}")
            for name, begin, end in _conditions(way, agent):
                begin()
                try:
                    took = loaded(server.port, *load)
                finally:
                    end()
                values.setdefault(name, []).append(took)
                report.progress(f"outage: {name}: p99 {took['p99_s'] * 1e3:.2f} ms")
                time.sleep(1.0)  # what has waited is sent before the next turn
    return _text(effort, values), {"effort": [effort.rounds, effort.seconds, effort.rate], "turns": values}


def _conditions(
    way: Relay, agent: subprocess.Popen[bytes]
) -> tuple[tuple[str, Callable[[], None], Callable[[], None]], ...]:
    def slow() -> None:
        way.delay_s = 2.0

    def fast() -> None:
        way.delay_s = 0.0

    return (
        (WELL, lambda: None, lambda: None),
        ("Jaeger is away", way.go_away, way.come_back),
        ("Jaeger takes 2 s for each message", slow, fast),
        (
            "the agent stands still",
            lambda: agent.send_signal(signal.SIGSTOP),
            lambda: agent.send_signal(signal.SIGCONT),
        ),
    )


def _text(effort: Effort, values: dict[str, list[dict[str, float]]]) -> str:
    def middle(name: str, what: str) -> float:
        return statistics.median(turn[what] for turn in values[name])

    rows = [
        (
            name,
            f"{middle(name, 'p50_s') * 1e3:.2f} ms",
            f"{middle(name, 'p99_s') * 1e3:.2f} ms",
            "" if name == WELL else f"{middle(name, 'p99_s') / middle(WELL, 'p99_s') - 1:+.1%}",
            f"{sum(turn['errors'] for turn in values[name]):.0f}",
        )
        for name in values
    ]
    how = (
        f"Latencies of a FastAPI service at {effort.rate:.0f} requests/s, turns of {effort.seconds:.0f} s, "
        f"the middle of {effort.rounds}; {report.load_average()}."
    )
    table = report.table(("condition", "p50", "p99", "p99 moves by", "errors"), rows)
    return f"## A backend that is away\n\n{how}\n\n{table}"


@contextlib.contextmanager
def _backend(folder: Path) -> Iterator[dict[str, str]]:
    state = folder / "stack"
    try:
        yield stack.up(stack_folder(), state, report.progress).endpoints
    finally:
        stack.down(state, report.progress)


@contextlib.contextmanager
def _agent(
    folder: Path, endpoints: dict[str, str], traces: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run an agent whose way to Jaeger is ours; yield its process and its port of OTLP over HTTP."""
    grpc, http, health = free_port(), free_port(), free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "AGENT_GRPC_PORT": str(grpc),
        "AGENT_HTTP_PORT": str(http),
        "AGENT_HEALTH_PORT": str(health),
        "AGENT_QUEUE_FOLDER": str(folder / "queue"),
        "TRACES_ENDPOINT": traces,
        "PROMETHEUS_URL": endpoints["prometheus"],
        "LOKI_URL": endpoints["loki"],
    }
    command = [str(binary_path(RECIPES[0], stack_folder())), f"--config={CONFIGURATION / 'agent.yaml'}"]
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    ready = f"http://127.0.0.1:{health}/"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(ready, timeout=5):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "agent.log").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.1)
        yield process, http
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)
