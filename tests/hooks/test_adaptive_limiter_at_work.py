"""The limiter before a real dependency that saturates, on a real clock, offered more than it can serve."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from otel_concurrency import AdaptiveLimiter, LimitReached

WORKERS = 10
WORK_S = 0.04
BEST = WORKERS / WORK_S
SETTLES_S = 4.0
MEASURED_S = 6.0


async def offer(load: float, limiter: AdaptiveLimiter | None) -> tuple[float, float]:
    """Offer `load` times what can be served, and return calls a second and their 99th percentile, s.

    What is measured is what a caller sees, its wait for the limiter included.
    """
    workers = asyncio.Semaphore(WORKERS)
    numbers = random.Random(1)
    began_s = time.monotonic()
    served: list[float] = []

    async def work() -> None:
        async with workers:
            await asyncio.sleep(WORK_S * numbers.uniform(0.7, 1.3))

    async def call() -> None:
        came_s = time.monotonic()
        if limiter is None:
            await work()
        else:
            try:
                async with limiter:
                    await work()
            except LimitReached:
                return
        now_s = time.monotonic()
        if SETTLES_S <= now_s - began_s < SETTLES_S + MEASURED_S:
            served.append(now_s - came_s)

    calls = set()
    next_s = began_s
    while time.monotonic() - began_s < SETTLES_S + MEASURED_S:
        next_s += numbers.expovariate(load * BEST)
        await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        calls.add(asyncio.ensure_future(call()))
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    served.sort()
    return len(served) / MEASURED_S, served[int(0.99 * len(served))]


@pytest.mark.scenario
def test_it_keeps_a_service_busy_and_quick() -> None:
    """Within 20 % of the best throughput, p99 under twice its unloaded value; without it, that triples."""
    _, unloaded_s = asyncio.run(offer(0.2, None))
    _, unlimited_s = asyncio.run(offer(1.5, None))
    limiter = AdaptiveLimiter("service", max_waiting=0)
    throughput, limited_s = asyncio.run(offer(1.5, limiter))
    print(
        f"{throughput / BEST:.2f} of the best, p99 {limited_s / unloaded_s:.2f} of unloaded, limit "
        f"{limiter.limit}; without a limit {unlimited_s / unloaded_s:.1f}"
    )
    assert throughput > 0.8 * BEST
    assert limited_s < 2 * unloaded_s
    assert unlimited_s > 3 * unloaded_s
