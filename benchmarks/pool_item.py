"""Measures one pool's work item in this process and prints it as one line of JSON.

Run as a file, by an interpreter that may have nothing of ours: peers live in environments of their own. Times
are CPU time of the whole process, submitter and worker, so that waiting for each other does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

ITEMS_PER_BATCH = 200
ITEMS_PER_READING = 4_000
PROCESS_ITEMS_PER_READING = 200


def work(number: int) -> int:
    """The shortest work item there is."""
    return number


def bare() -> AbstractContextManager[Any]:
    """Leave the interpreter as it is."""
    return nullcontext()


def ours(native: bool, in_span: bool = True) -> AbstractContextManager[Any]:
    """Ours, its metrics read by nobody while times are taken, inside a recording span or none."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from otel_concurrency.instrumentors.threads import ConcurrencyThreadingInstrumentor
    from otel_concurrency.signals.producer import default_producer

    if native:
        import otel_concurrency.probes.native_work  # noqa: F401  # not built: the twin would be measured
    default_producer().attach(MeterProvider(metric_readers=[InMemoryMetricReader()]))
    ConcurrencyThreadingInstrumentor().instrument(native=native)
    return _span() if in_span else nullcontext()


def upstream() -> AbstractContextManager[Any]:
    """Upstream's instrumentor, inside a recording span."""
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    ThreadingInstrumentor().instrument()
    return _span()


def logfire() -> AbstractContextManager[Any]:
    """Logfire, which patches executors when it is configured; nothing is sent."""
    import logfire

    logfire.configure(send_to_logfire=False, console=False, service_name="benchmark")
    return logfire.span("request")


def ddtrace() -> AbstractContextManager[Any]:
    """ddtrace's patch of executors, inside a span; no agent listens."""
    from ddtrace import patch
    from ddtrace.trace import tracer

    patch(futures=True)
    return tracer.trace("request")


def _span() -> AbstractContextManager[Any]:
    """Enter a span whose provider is nobody's default: worker processes get its context and make no spans."""
    from opentelemetry.sdk.trace import TracerProvider

    return TracerProvider().get_tracer("benchmark").start_as_current_span("request")


VARIANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "bare": bare,
    "native": lambda: ours(native=True),
    "native_no_span": lambda: ours(native=True, in_span=False),
    "pure": lambda: ours(native=False),
    "upstream": upstream,
    "logfire": logfire,
    "ddtrace": ddtrace,
}


def run_items(pool: Executor, count: int) -> None:
    """Submit this many work items, in batches, and ask each for its result."""
    for _ in range(count // ITEMS_PER_BATCH):
        for future in [pool.submit(work, number) for number in range(ITEMS_PER_BATCH)]:
            future.result()


def round_trips(pool: Executor, count: int) -> None:
    """Submit this many work items one after the other, each when the one before has come back."""
    for number in range(count):
        pool.submit(work, number).result()


def best(read: Callable[[], float], seconds: float) -> float:
    """Return the smallest of the readings that fit into a time."""
    read()
    readings: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(readings) < 5:
        readings.append(read())
    return min(readings)


def thread_item_us(seconds: float) -> float:
    """Return the CPU time of a work item of a thread pool, submit to result, µs."""
    with ThreadPoolExecutor(1, "benchmark") as pool:

        def read() -> float:
            before = time.process_time_ns()
            run_items(pool, ITEMS_PER_READING)
            return (time.process_time_ns() - before) / ITEMS_PER_READING / 1e3

        return best(read, seconds)


def process_round_trip_us(seconds: float) -> float:
    """Return the time of a round trip through a process pool, µs."""
    with ProcessPoolExecutor(1) as pool:

        def read() -> float:
            before = time.perf_counter_ns()
            round_trips(pool, PROCESS_ITEMS_PER_READING)
            return (time.perf_counter_ns() - before) / PROCESS_ITEMS_PER_READING / 1e3

        return best(read, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("kind", choices=["thread", "process"])
    parser.add_argument("--seconds", type=float, default=0.7)
    arguments = parser.parse_args()
    measure = {"thread": thread_item_us, "process": process_round_trip_us}[arguments.kind]
    if arguments.kind == "process" and arguments.variant.startswith(("native", "pure")):
        from otel_concurrency.instrumentors.process_pools import ProcessPoolInstrumentor

        ProcessPoolInstrumentor().instrument(native=arguments.variant != "pure")
    with VARIANTS[arguments.variant]():
        value = measure(arguments.seconds)
    print(json.dumps({"value": value}), flush=True)
    os._exit(0)  # what peers do at their end is not the question


if __name__ == "__main__":
    main()
