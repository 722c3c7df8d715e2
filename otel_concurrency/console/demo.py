"""The demo: the shop's two services under `opentelemetry-instrument`, real requests, and what they tell."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import otel_concurrency
from otel_concurrency.console.receiver import Receiver
from otel_concurrency.console.service import CHECK_INTERVAL_S, Service, ServiceFailed, environment_for
from otel_concurrency.console.store import Store
from otel_concurrency.console.task_table import TaskLine, read_tasks
from otel_concurrency.console.trace_tree import Trace, read_trace, slowest_trace_id

START_TIMEOUT_S = 60.0
ARRIVAL_TIMEOUT_S = 15.0
TRAFFIC_TIMEOUT_S = 600.0
SERVICES = ("warehouse", "shop")


class DemoFailed(Exception):  # noqa: N818  (told to a person as it is)
    """The demo could not run, or something that it sent did not arrive."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of it.

    Attributes:
        traffic: What the customers did: `requests`, `answers`, and the `tasks` that follow from them.
        trace: The slowest trace.
        tasks: The task table, as it was while the services were still running.
        missing: What did not arrive, a sentence each; empty when all did.
    """

    traffic: dict[str, Any]
    trace: Trace | None
    tasks: list[TaskLine]
    missing: list[str]


def find_shop() -> Path:
    """Return the folder of the shop's programs.

    Raises:
        DemoFailed: It is not beside the package.
    """
    package = Path(otel_concurrency.__file__).parent
    for folder in (package / "examples" / "shop", package.parent / "examples" / "shop"):
        if (folder / "__main__.py").is_file():
            return folder
    raise DemoFailed(
        "the demo runs examples/shop, which is in the project's repository and not in this installation; "
        "run it from a clone, or give its folder with --shop"
    )


def run_demo(
    receiver: Receiver,
    shop: Path,
    *,
    requests: int,
    concurrency: int,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> DemoResult:
    """Start the services, send the requests, stop the services, and read what was received.

    Args:
        receiver: A running one.
        shop: The folder of the shop's programs.
        requests: How many requests to send.
        concurrency: How many at once.
        say: Told of each step.
        check: Called again and again; what it raises stops everything and goes to the caller.

    Raises:
        DemoFailed: A service or the traffic did not work.
    """
    store = receiver.store
    with ExitStack() as stack:
        try:
            say("starting the warehouse and the storefront under opentelemetry-instrument")
            services = []
            arguments: list[str] = []
            for name, program in zip(SERVICES, ("warehouse", "storefront"), strict=True):
                environment = environment_for(os.environ, name, receiver.http_endpoint)
                command = [*_instrumented(), str(shop), program, "--port", "0", *arguments]
                service = Service(name, command, environment)
                stack.callback(service.stop)
                services.append(service)
                arguments = ["--warehouse", service.start(START_TIMEOUT_S, check)]
            say(f"sending {requests} requests, {concurrency} at a time")
            traffic = _drive(shop, services[-1].url, requests, concurrency, check)
            say("waiting for the metrics")
            store.wait_until(functools.partial(_has_all_tasks, store, traffic, check), ARRIVAL_TIMEOUT_S)
            tasks = read_tasks(store)
            for service in services:
                service.check_running()
            say("stopping the services")
            for service in services:
                service.ask_to_stop()
        except ServiceFailed as error:
            raise DemoFailed(str(error)) from error
    trace_id = slowest_trace_id(store)
    trace = read_trace(store, trace_id) if trace_id else None
    missing = [*_wrong_answers(traffic), *_missing_signals(store, trace), *_missing_tasks(traffic, tasks)]
    return DemoResult(traffic, trace, tasks, missing)


def _instrumented() -> list[str]:
    command = Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument"
    if not command.is_file():
        raise DemoFailed(f"there is no {command}; install otel-concurrency with pip into this Python")
    return [str(command), sys.executable]


def _drive(
    shop: Path, url: str, requests: int, concurrency: int, check: Callable[[], None]
) -> dict[str, Any]:
    """Let the customers in: a program of its own, which we do not instrument."""
    numbers = ["--requests", str(requests), "--concurrency", str(concurrency)]
    command = [sys.executable, str(shop), "traffic", "--url", url, *numbers]
    deadline = time.monotonic() + TRAFFIC_TIMEOUT_S
    customers = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with customers:
        try:
            while True:
                try:
                    out, error = customers.communicate(timeout=CHECK_INTERVAL_S)
                    break
                except subprocess.TimeoutExpired:
                    check()
                    if time.monotonic() > deadline:
                        took = f"the requests took more than {TRAFFIC_TIMEOUT_S:.0f} s"
                        raise DemoFailed(took) from None
        finally:
            customers.kill()
    if customers.returncode:
        raise DemoFailed(f"the customers gave up:\n{error}")
    traffic: dict[str, Any] = json.loads(out)
    return traffic


def _wrong_answers(traffic: dict[str, Any]) -> list[str]:
    return [
        f"{count} requests ({kind}) were answered otherwise" for kind, count in traffic["unexpected"].items()
    ]


def _missing_signals(store: Store, trace: Trace | None) -> list[str]:
    missing = []
    for table, what in (("spans", "spans"), ("logs", "log records"), ("metric_points", "metrics")):
        query = f"SELECT DISTINCT service FROM {table} JOIN resources USING (resource_key)"
        received = {row[0] for row in store.query(query)}
        missing += [f"no {what} of {name} arrived" for name in SERVICES if name not in received]
    if trace is not None and trace.services != sorted(SERVICES):
        missing.append(f"the slowest trace is of {' and '.join(trace.services)} only")
    if trace is not None and not trace.log_count:
        missing.append("no log record carries the id of the slowest trace")
    return missing


def _has_all_tasks(store: Store, traffic: dict[str, Any], check: Callable[[], None]) -> bool:
    check()
    return not _missing_tasks(traffic, read_tasks(store))


def _missing_tasks(traffic: dict[str, Any], lines: list[TaskLine]) -> list[str]:
    if not lines:
        return ["no asyncio.task.* metrics arrived"]
    seen = {line.function: line for line in lines}
    missing = []
    for function, expected in traffic["tasks"].items():
        line = seen.get(function)
        got = (line.created, line.failed, line.live) if line else (0, 0, 0)
        if got != (expected["created"], expected["failed"], 0):
            missing.append(
                f"of {function} the requests made {expected['created']} tasks, {expected['failed']} failing; "
                f"received: {got[0]} created, {got[1]} failed, {got[2]} live"
            )
    return missing
