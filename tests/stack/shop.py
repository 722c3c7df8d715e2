"""The shop of `examples/shop` as a user runs it: two services under `opentelemetry-instrument`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack.backend import Backend, Series, eventually
from tests.stack.places import TREE

REQUESTS = 60

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
SHOP = TREE / "examples" / "shop"

NUMBERS = '{__name__=~"asyncio_task_(created_total|completed_total|count)",job=~"shop|warehouse"}'
"""One query, so that all numbers of a service come from one export of it."""

END_S = 30.0

# Seconds instead of a minute between exports: the tests wait for the last one.
PACE = {
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
}


@dataclass(frozen=True)
class Numbers:
    """Tasks by `code.function.name`, as Prometheus tells them at one moment.

    Attributes:
        created: How many were created.
        completed: How many were done, by function and outcome; without those at zero.
        live: How many live by `asyncio.task.count`, by service.
    """

    created: dict[str, int]
    completed: dict[tuple[str, str], int]
    live: dict[str, int]

    @classmethod
    def of(cls, series: list[Series]) -> Numbers:
        """Sort the samples of `NUMBERS` by what they count."""
        created: dict[str, int] = {}
        completed: dict[tuple[str, str], int] = {}
        live: dict[str, int] = {}
        for one in series:
            labels, value = one.labels, int(one.value or 0)
            if labels["__name__"] == "asyncio_task_count":
                live[labels["job"]] = live.get(labels["job"], 0) + value
                continue
            # uvicorn's tasks run in both services, so the service goes before the name of the function.
            function = f"{labels['job']}: {labels['code_function_name']}"
            if labels["__name__"] == "asyncio_task_created_total":
                created[function] = created.get(function, 0) + value
            elif value:
                key = function, labels["asyncio_task_outcome"]
                completed[key] = completed.get(key, 0) + value
        return cls(created, completed, live)


@dataclass(frozen=True)
class ShopRun:
    """What a whole run of the shop left behind.

    Attributes:
        traffic: What the traffic driver says it did.
        running: The numbers after the traffic, while both services still ran.
        ended: The numbers after both services ended.
        status: Exit status by service.
        output: What each service printed.
    """

    traffic: dict[str, Any]
    running: Numbers
    ended: Numbers
    status: dict[str, int]
    output: dict[str, str]

    def created(self) -> dict[str, int]:
        """Return how many tasks the traffic implies, by function."""
        return {_service(name) + name: row["created"] for name, row in self.traffic["tasks"].items()}

    def completed(self) -> dict[tuple[str, str], int]:
        """Return how many tasks of each outcome the traffic implies; without those at zero."""
        rows = {}
        for name, row in self.traffic["tasks"].items():
            rows[_service(name) + name, "finished"] = row["created"] - row["failed"]
            rows[_service(name) + name, "failed"] = row["failed"]
        return {key: count for key, count in rows.items() if count}


def run_shop(backend: Backend, logs: Path) -> ShopRun:
    """Start both services, send the traffic, read the numbers, end both, read the numbers again."""
    grpc = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoints["otlp_grpc"],
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    http = {"OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoints["otlp_http"]}
    with (
        service("warehouse", logs, grpc) as (warehouse, warehouse_url),
        service("shop", logs, http, "--warehouse", warehouse_url) as (storefront, url),
    ):
        command = [sys.executable, str(SHOP), "traffic", f"--url={url}", f"--requests={REQUESTS}"]
        driver = subprocess.run(
            command, env=environ({}), capture_output=True, text=True, timeout=60, check=True
        )
        traffic = json.loads(driver.stdout)
        expected = {_service(name) + name: row["created"] for name, row in traffic["tasks"].items()}

        def all_done(numbers: Numbers) -> bool:
            done = {name: _done(numbers, name) for name in expected}
            return {name: numbers.created.get(name) for name in expected} == expected == done

        running = eventually(f"tasks as sent: {expected}", lambda: _numbers(backend), all_done)
        for process in (storefront, warehouse):
            process.send_signal(signal.SIGTERM)
            process.wait(END_S)
    # uvicorn raises the signal again from inside `Server.serve`, and the process ends there.
    last = {"shop": 1, "warehouse": 1}
    ended = eventually("the last export", lambda: _numbers(backend), lambda numbers: numbers.live == last)
    return ShopRun(
        traffic,
        running,
        ended,
        status={"shop": storefront.returncode, "warehouse": warehouse.returncode},
        output={name: (logs / f"{name}.log").read_text(encoding="utf-8") for name in ("shop", "warehouse")},
    )


@contextmanager
def service(
    name: str,
    logs: Path,
    exporter: Mapping[str, str],
    *arguments: str,
    program: str = "",
    says: str = "listening on ",
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run one program of the shop under the distro; yield its process, and what follows `says` in its output.

    It is ended at the latest here.
    """
    program = program or ("storefront" if name == "shop" else name)
    log = logs / f"{name}.log"
    port = [] if program == "worker" else ["--port=0"]
    command = [str(INSTRUMENT), sys.executable, str(SHOP), program, *port, *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environ({"OTEL_SERVICE_NAME": name, **PACE, **exporter, **INNER_SPANS, **OURS}),
            stdout=output,
            stderr=output,
        )

    def address() -> str:
        assert process.poll() is None, (
            f"{name} ended with {process.returncode}: {log.read_text(encoding='utf-8')}"
        )
        _, _, rest = log.read_text(encoding="utf-8").partition(says)
        return (rest.partition("\n")[0] or says) if "\n" in rest else ""

    try:
        yield process, eventually(f"{name} says where it listens", address)
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# Without it a request is one server span; the spans of the operations inside are what makes `internal` ones.
# It is there for other tests, and what it emits we leave out.
OURS = {
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
}
INNER_SPANS = {"OTEL_PYTHON_CONCURRENCY_HTTP_INNER_SPANS": "true"}


def environ(more: Mapping[str, str]) -> dict[str, str]:
    """Return our environment without the OpenTelemetry variables of whoever runs the tests, and `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | dict(more)


def _numbers(backend: Backend) -> Numbers:
    return Numbers.of(backend.series(NUMBERS))


def _done(numbers: Numbers, function: str) -> int:
    return sum(count for (name, _), count in numbers.completed.items() if name == function)


def _service(function: str) -> str:
    return "shop: " if function.startswith("storefront.") else "warehouse: "
