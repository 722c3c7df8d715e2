"""What `otel_concurrency.timed` costs a call: of a function, a coroutine, an asynchronous generator's item.

Each is called as it is, timed with nobody counting, and timed with exemplars kept. What is told is the
fastest of several rounds, less the same of the bare function's, in CPU time: nothing here waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks import report
from otel_concurrency.hooks import timed as decorating
from otel_concurrency.probes.function_times import FunctionTimes
from otel_concurrency.signals import current_context


@dataclass(frozen=True)
class Effort:
    """How often."""

    calls: int
    rounds: int


FULL = Effort(calls=50_000, rounds=15)
QUICK = Effort(calls=20_000, rounds=5)


def function() -> None:
    """Do nothing."""


async def coroutine() -> None:
    """Do nothing, too."""


async def items(count: int) -> AsyncIterator[int]:
    """Yield numbers."""
    for each in range(count):
        yield each


def call(called: Callable[[], Any], calls: int) -> float:
    """Return ns a call."""
    began_ns = time.thread_time_ns()
    for _ in range(calls):
        called()
    return (time.thread_time_ns() - began_ns) / calls


def await_each(called: Callable[[], Any], calls: int) -> float:
    """Return ns a call that is awaited."""

    async def main() -> float:
        began_ns = time.thread_time_ns()
        for _ in range(calls):
            await called()
        return (time.thread_time_ns() - began_ns) / calls

    return asyncio.run(main())


def exhaust(called: Callable[[int], Any], calls: int) -> float:
    """Return ns an item."""

    async def main() -> float:
        began_ns = time.thread_time_ns()
        async for _ in called(calls):
            pass
        return (time.thread_time_ns() - began_ns) / calls

    return asyncio.run(main())


def by_hand(histogram: Histogram) -> Callable[[], None]:
    """Return what one would write without us."""

    def timed_by_hand() -> None:
        began_s = time.perf_counter()
        function()
        histogram.record(time.perf_counter() - began_s, {"code.function.name": "function"})

    return timed_by_hand


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Return the section of the report, and its numbers in ns."""
    counting, off = FunctionTimes(), FunctionTimes()
    counting.start(current_context.get_current)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    recorded = by_hand(provider.get_meter("benchmark").create_histogram("duration"))
    kinds: dict[str, tuple[Callable[[Any, int], float], Any]] = {
        "a function": (call, function),
        "a coroutine": (await_each, coroutine),
        "an item of an asynchronous generator": (exhaust, items),
    }
    best: dict[tuple[str, str], float] = {}
    for _ in range(effort.rounds):  # one after the other, so that a slow moment hits all alike
        for kind, (measure, bare) in kinds.items():
            variants = {
                "bare": bare,
                "off": decorating.timed(bare, times=off),
                "counting": decorating.timed(bare, times=counting),
            }
            if bare is function:
                variants["by hand"] = recorded
            for variant, called in variants.items():
                ns = measure(called, effort.calls)
                best[kind, variant] = min(best.get((kind, variant), ns), ns)
        counting.read()  # as a collection would
    provider.shutdown()
    numbers = {f"{kind}, {variant}": value for (kind, variant), value in best.items()}
    rows = []
    for kind in kinds:
        bare_ns = best[kind, "bare"]
        added = [
            f"+{best[kind, variant] - bare_ns:.0f} ns" if (kind, variant) in best else "-"
            for variant in ("off", "counting", "by hand")
        ]
        rows.append([kind, f"{bare_ns:.0f} ns", *added])
    head = ["", "bare", "timed, nobody counts", "timed", "by hand, `histogram.record`"]
    return f"## Timed functions\n\n{report.table(head, rows)}", numbers
