"""Measures one pool's work item in this process and prints it as one line of JSON.

Run as a file, by an interpreter that may have nothing of ours: peers live in environments of their own. Times
of a thread pool are CPU time of the whole process, submitter and worker, so that waiting for each other does
not count. Of a process pool it is the round trip by the clock: as many as each line of standard input says,
so that several variants can take turns in a time in which the machine stays as it is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

ITEMS_PER_BATCH = 200
ITEMS_PER_READING = 4_000
WARM_UP_ROUND_TRIPS = 300


def work(number: int) -> int:
    """The shortest work item there is."""
    return number


def bare() -> AbstractContextManager[Any]:
    """Leave the interpreter as it is."""
    return nullcontext()


def ours(native: bool, in_span: bool = True, provider: bool = False) -> AbstractContextManager[Any]:
    """Ours, its metrics read by nobody while times are taken, inside a recording span or none.

    Args:
        native: Whether the native probes count.
        in_span: Whether to be inside a span.
        provider: Whether that span's provider is everybody's default, in worker processes as well.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from otel_concurrency.instrumentors.threads import ConcurrencyThreadingInstrumentor
    from otel_concurrency.signals.producer import default_producer

    if native:
        import otel_concurrency.probes.native_work  # noqa: F401  # not built: the twin would be measured
    default_producer().attach(MeterProvider(metric_readers=[InMemoryMetricReader()]))
    ConcurrencyThreadingInstrumentor().instrument(native=native)
    return _span(is_default=provider) if in_span else nullcontext()


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


def _span(*, is_default: bool = False) -> AbstractContextManager[Any]:
    """Enter a span; where its provider is nobody's default, worker processes make no spans."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    if is_default:
        trace.set_tracer_provider(provider)
    return provider.get_tracer("benchmark").start_as_current_span("request")


VARIANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "bare": bare,
    "native": lambda: ours(native=True, provider=True),
    "native_no_span": lambda: ours(native=True, in_span=False),
    "native_worker_span": lambda: ours(native=True, provider=True),
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


def serve_round_trips() -> None:
    """Answer each line of standard input, a count of round trips through a process pool, with µs for one."""
    # Under forkserver, the default from 3.14, the worker would have nothing of what this process has set up.
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        round_trips(pool, WARM_UP_ROUND_TRIPS)
        for line in sys.stdin:
            before = time.perf_counter_ns()
            round_trips(pool, int(line))
            tell((time.perf_counter_ns() - before) / int(line) / 1e3)


def tell(value: float) -> None:
    """Print a value for whoever started this process."""
    print(json.dumps({"value": value}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("kind", choices=["thread", "process"])
    parser.add_argument("--seconds", type=float, default=0.7, help="of a thread pool")
    arguments = parser.parse_args()
    if arguments.kind == "process" and arguments.variant.startswith(("native", "pure")):
        from otel_concurrency.instrumentors.process_pools import ProcessPoolInstrumentor

        ProcessPoolInstrumentor().instrument(
            native=arguments.variant != "pure",
            process_spans="all" if arguments.variant == "native_worker_span" else "lazy",
        )
    with VARIANTS[arguments.variant]():
        if arguments.kind == "thread":
            tell(thread_item_us(arguments.seconds))
        else:
            serve_round_trips()
    os._exit(0)  # what peers do at their end is not the question


if __name__ == "__main__":
    main()
