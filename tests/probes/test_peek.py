"""Reading what probes keep without taking from whoever exports it."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import make_task_probe, make_work_probe
from otel_concurrency.probes.gil import GilProbe
from otel_concurrency.probes.histogram import Histogram, HistogramState, state_since
from otel_concurrency.probes.readers import Readers

origin: contextvars.ContextVar[str] = contextvars.ContextVar("origin")
BOTH = pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])


@BOTH
def test_a_look_at_tasks_leaves_their_exemplars(native: bool) -> None:
    probe = make_task_probe(native=native, origin=origin)
    hook = TaskHook(probe)
    hook.install()

    async def work() -> None:
        await asyncio.sleep(0.01)

    async def main() -> None:
        origin.set("here")
        await asyncio.gather(*(asyncio.create_task(work()) for _ in range(3)))
        (seen,) = (row for row in probe.peek_rows() if row.function.endswith(".work"))
        assert (seen.created, seen.done, seen.live, seen.finished.count) == (3, 3, 0, 3)
        assert seen.finished.exemplars == ()

    try:
        asyncio.run(main())
    finally:
        hook.remove()
    (row,) = (row for row in probe.read_rows() if row.function.endswith(".work"))
    assert [each.origin for each in row.finished_durations.exemplars] != []


@BOTH
def test_a_look_at_work_leaves_its_exemplars(native: bool) -> None:
    probe = make_work_probe(native=native, origin=origin)
    pool = probe.pool("pool", "thread")

    def fail() -> None:
        raise LookupError

    def run() -> None:
        origin.set("here")
        with ThreadPoolExecutor(1) as workers:
            workers.submit(pool.wrap(sorted, contextvars.copy_context()), ()).result()
            workers.submit(pool.wrap(fail, contextvars.copy_context())).exception()

    contextvars.copy_context().run(run)
    waiting = pool.wrap(sorted)
    [seen] = probe.peek()
    assert (seen.name, seen.kind, seen.submitted, seen.live) == ("pool", "thread", 3, 1)
    assert (seen.queue_times.count, seen.queue_times.exemplars) == (2, ())
    assert sum(times.count for times in seen.run_times.values()) == 2
    [row] = probe.read()
    assert row.queue_times.exemplars != ()
    waiting.reject()
    assert probe.peek()[0].live == 0


def observed(*values: int) -> HistogramState:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    return histogram.read()


def test_what_came_between_two_readings_is_the_difference() -> None:
    before = observed(0, 1_000, 2_000_000)
    now = observed(0, 1_000, 2_000_000, 0, 5_000, 5_000, 700_000)
    new = state_since(before, now)
    assert (new.count, new.sum_ns, new.zero_count) == (4, 710_000, 1)
    assert new.quantile_s(0.5) == pytest.approx(5e-6, rel=0.05)
    assert new.max_ns == pytest.approx(700_000, rel=0.1)


def test_a_new_largest_value_is_exact() -> None:
    assert state_since(observed(1_000), observed(1_000, 123_456)).max_ns == 123_456


def test_nothing_new_is_nothing() -> None:
    before = observed(1_000, 2_000)
    assert state_since(before, before) == HistogramState()
    assert state_since(HistogramState(), before) == before.__class__(
        2, 3_000, state_since(HistogramState(), before).min_ns, 2_000, 0, *_buckets(before)
    )


def _buckets(state: HistogramState) -> tuple[int, tuple[int, ...]]:
    return state.first_position, state.bucket_counts


def test_what_began_anew_is_all_new() -> None:
    assert state_since(observed(1_000, 2_000), observed(7)) == observed(7)


def test_the_longest_wait_for_the_gil_is_told_once() -> None:
    gil = GilProbe(lambda: 0)
    gil.add(3)
    gil.add(9)
    gil.add(4)
    assert [gil.take_longest_ns(), gil.take_longest_ns()] == [9, 0]


def test_readers_come_and_go() -> None:
    readers = Readers()
    one, other = (lambda: [1]), (lambda: [2])
    leave = readers.offer("work", one)
    readers.offer("work", other)
    assert readers.of("work") == (one, other)
    leave()
    leave()
    assert readers.of("work") == (other,)
    assert readers.of("loops") == ()
    assert repr(readers) == "<Readers of work>"
