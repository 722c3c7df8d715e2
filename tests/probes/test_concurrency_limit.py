"""The limit's steps, and what comes of them beside a simulated dependency, on a clock that is a number."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass

import pytest

from otel_concurrency.probes.concurrency_limit import SAMPLES, WINDOW_NS, ConcurrencyLimit

MS = 1_000_000


@dataclass
class Served:
    """What a run of the simulation came to, its second half: calls a second, and their 99th percentile."""

    throughput: float
    p99_ns: int
    limit: int


def serve(
    load: float,
    *,
    limit: ConcurrencyLimit | None,
    workers: int = 20,
    mean_ms: int = 10,
    seconds: int = 40,
    seed: int = 1,
) -> Served:
    """Simulate a dependency of so many workers, and calls that come at random, `load` times what it serves.

    Calls beyond the limit are refused. Those that the workers have no time for wait in the dependency.
    """
    numbers = random.Random(seed)
    rate_ns = mean_ms * MS / (load * workers)
    ends_ns = seconds * 1_000_000_000
    serials = itertools.count()
    events = [(int(numbers.expovariate(1 / rate_ns)), next(serials), -1)]
    queue: deque[int] = deque()
    busy = in_flight = 0
    latencies: list[int] = []

    def work(now_ns: int, came_ns: int) -> None:
        took_ns = int(numbers.lognormvariate(-0.02, 0.2) * mean_ms * MS)
        heapq.heappush(events, (now_ns + took_ns, next(serials), came_ns))

    while events[0][0] < ends_ns:
        now_ns, _, came_ns = heapq.heappop(events)
        if came_ns < 0:
            heapq.heappush(events, (now_ns + int(numbers.expovariate(1 / rate_ns)), next(serials), -1))
            if limit is not None and in_flight >= limit.limit:
                continue
            in_flight += 1
            if busy < workers:
                busy += 1
                work(now_ns, now_ns)
            else:
                queue.append(now_ns)
            continue
        if now_ns > ends_ns // 2:
            latencies.append(now_ns - came_ns)
        if limit is not None:
            limit.observe(now_ns - came_ns, in_flight, now_ns)
        in_flight -= 1
        if queue:
            work(now_ns, queue.popleft())
        else:
            busy -= 1
    latencies.sort()
    return Served(
        len(latencies) / (seconds / 2), latencies[int(0.99 * len(latencies))], limit.limit if limit else 0
    )


@pytest.mark.parametrize("load", [1.5, 4.0])
@pytest.mark.parametrize(("workers", "initial"), [(20, 20), (20, 1), (20, 200), (3, 20), (80, 20)])
def test_a_saturating_dependency_stays_busy_and_quick(load: float, workers: int, initial: int) -> None:
    """Within 20 % of its best throughput, at less than twice what an unhurried call takes."""
    best = workers / 0.010
    unhurried = serve(0.2, limit=None, workers=workers).p99_ns
    seconds = 20 if workers > 50 else 40
    limited = serve(load, limit=ConcurrencyLimit(initial=initial), workers=workers, seconds=seconds)
    assert limited.throughput > 0.8 * best
    assert limited.p99_ns < 2 * unhurried


def test_without_a_limit_the_same_load_more_than_triples_the_99th_percentile() -> None:
    unhurried = serve(0.2, limit=None).p99_ns
    assert serve(1.5, limit=None, seconds=10).p99_ns > 3 * unhurried


def test_without_saturation_the_limit_stays_and_nobody_is_refused() -> None:
    limit = ConcurrencyLimit(initial=40)
    served = serve(0.4, limit=limit)
    assert served.limit == 40
    assert served.throughput == pytest.approx(0.4 * 20 / 0.010, rel=0.05)


def test_a_dependency_that_gets_slower_for_good_is_used_to_the_full_again() -> None:
    limit = ConcurrencyLimit()
    serve(1.5, limit=limit)
    served = serve(1.5, limit=limit_from(limit), mean_ms=25, seconds=80)
    assert served.throughput > 0.8 * 20 / 0.025


def limit_from(limit: ConcurrencyLimit) -> ConcurrencyLimit:
    """Let the clock of a limit begin anew, with all that it has learnt."""
    limit._began_ns = None
    return limit


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_the_limit_stays_within_its_bounds_and_halves_at_most(seed: int) -> None:
    numbers = random.Random(seed)
    low = numbers.randint(1, 10)
    high = low + numbers.randint(0, 500)
    limit = ConcurrencyLimit(
        minimum=low, initial=numbers.randint(low, high), maximum=high, tolerance=numbers.uniform(1.01, 3)
    )
    now_ns = 0
    for _ in range(5_000):
        now_ns += numbers.choice((0, 1, 10**5, 10**7, 10**9))
        before = limit.limit
        limit.observe(
            numbers.choice((0, 1, 10**6, 10**9, 10**12)),
            numbers.randint(1, high * 2),
            now_ns,
            is_frozen=numbers.random() < 0.001,
        )
        assert low <= limit.limit <= high
        assert limit.limit >= max(low, before // 2 - 1)


def calls(limit: ConcurrencyLimit, latency_ns: int, windows: int, *, is_frozen: bool = False) -> None:
    """Let calls come back, as many at a time as the limit allows, for so many windows."""
    now_ns = (limit._began_ns or 0) + 1
    for _ in range(windows * SAMPLES):
        now_ns += WINDOW_NS // (SAMPLES - 1) + 1
        limit.observe(latency_ns, limit.limit, now_ns, is_frozen=is_frozen)


def test_it_is_frozen_while_latencies_say_nothing() -> None:
    limit = ConcurrencyLimit()
    calls(limit, 10 * MS, 8)
    before = (limit.limit, limit.unhurried_p99_ns, limit.p99_ns)
    calls(limit, 500 * MS, 10, is_frozen=True)
    assert (limit.limit, limit.unhurried_p99_ns, limit.p99_ns) == before
    calls(limit, 500 * MS, 10)
    assert limit.limit < before[0]


def test_a_window_has_enough_calls_however_long_that_takes() -> None:
    limit = ConcurrencyLimit()
    changed = [limit.observe(MS, 20, n * WINDOW_NS) for n in range(SAMPLES)]
    assert changed.index(True) == SAMPLES - 1


def test_little_s_law_bounds_it() -> None:
    """A thousand calls a second of 10 ms each keep ten busy; whatever the gradient wants."""
    limit = ConcurrencyLimit(initial=500)
    now_ns = 0
    for _ in range(20_000):
        now_ns += MS
        limit.observe(10 * MS, limit.limit, now_ns)
    assert limit.limit < 20


@pytest.mark.parametrize(
    "numbers", [{"minimum": 0}, {"initial": 2, "minimum": 3}, {"initial": 9, "maximum": 8}, {"tolerance": 1}]
)
def test_what_leaves_no_room_is_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not"):
        ConcurrencyLimit(**numbers)
