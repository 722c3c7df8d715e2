"""The pure twin counts ends without a lock: a reading in the middle of one counts a task once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.probes.histogram import MAX_PENDING, Histogram
from otel_concurrency.probes.pure import PureTaskProbe
from otel_concurrency.probes.tasks import TaskRow


async def one() -> int:
    return 1


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def row_of_one(probe: PureTaskProbe) -> TaskRow:
    [row] = [row for row in probe.read_rows() if row.function == f"{__name__}.one"]
    return row


def test_a_reading_while_a_task_ends_counts_it_once(loop: asyncio.AbstractEventLoop) -> None:
    probe = PureTaskProbe()
    readings: list[TaskRow] = []

    class Read(asyncio.Future[Any]):
        """Is read in the middle of its end, as from another thread."""

        def cancelled(self) -> bool:
            readings.append(row_of_one(probe))
            return super().cancelled()

    made: list[Read] = []

    def original(loop: asyncio.AbstractEventLoop, coro: Any) -> Read:
        coro.close()
        made.append(Read(loop=loop))
        return made[-1]

    create_task, silence = probe.replace(original)
    create_task(loop, one())
    before = row_of_one(probe)
    made[0].set_result(None)
    loop.run_until_complete(asyncio.sleep(0))
    after = row_of_one(probe)
    assert [(row.created, row.finished, row.live) for row in (before, *readings, after)] == [
        (1, 0, 1),
        (1, 0, 0),
        (1, 1, 0),
    ]
    silence()
    create_task(loop, one())
    assert row_of_one(probe).created == 1


def test_what_is_appended_while_values_are_sorted_in_waits_for_the_next_time() -> None:
    histogram = Histogram()
    pending = histogram.pending

    class Late(int):
        """Appends as another thread would, once it is looked at."""

        def __gt__(self, other: int) -> bool:
            if len(pending) < 2:
                pending.append(5)
            return int(self) > other

    pending.extend([3, Late(4)])
    histogram.sort_in()
    assert histogram.pending is pending
    assert pending == [5, 5]
    assert histogram.read().count == 4
    assert not pending


@pytest.mark.parametrize("count", [MAX_PENDING - 1, MAX_PENDING, 3 * MAX_PENDING + 1])
def test_all_ends_are_counted_whoever_sorts_them_in(loop: asyncio.AbstractEventLoop, count: int) -> None:
    probe = PureTaskProbe()
    create_task, _ = probe.replace(asyncio.BaseEventLoop.create_task)

    async def main() -> None:
        await asyncio.gather(*(create_task(loop, one()) for _ in range(count)))

    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0))
    row = row_of_one(probe)
    assert (row.created, row.finished, row.live, row.finished_durations.count) == (count, count, 0, count)


def test_one_that_was_done_when_it_came_is_counted_too(loop: asyncio.AbstractEventLoop) -> None:
    probe = PureTaskProbe()

    def done(loop: asyncio.AbstractEventLoop, coro: Any) -> asyncio.Future[Any]:
        coro.close()
        future: asyncio.Future[Any] = loop.create_future()
        future.set_result(None)
        return future

    create_task: Callable[..., Any] = probe.replace(done)[0]
    create_task(loop, one())
    loop.run_until_complete(asyncio.sleep(0))
    assert row_of_one(probe).finished == 1
