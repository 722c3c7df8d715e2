"""Waits for trio's locks and channels: counted where somebody had to wait, as long as they took."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio._channel import MemoryReceiveChannel, MemorySendChannel

from otel_concurrency.probes.waits import WaitRow
from tests.hooks.trio_runs import run_as_guest
from tests.hooks.waiting import Queue, Waiting, waiting

__all__ = ["waiting"]

OURS = (
    (trio.lowlevel.ParkingLot, "park"),
    (trio.Event, "wait"),
    (MemorySendChannel, "send"),
    (MemoryReceiveChannel, "receive"),
)


async def one_after_the_other(lock: Any, holders: int) -> None:
    async def hold() -> None:
        async with lock:
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for _ in range(holders):
            nursery.start_soon(hold)


async def both(*functions: Callable[[], Any]) -> None:
    """Run each until it waits, then the next one."""
    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("make", [trio.Lock, trio.StrictFIFOLock])
@pytest.mark.parametrize("run", [trio.run, run_as_guest])
def test_who_waits_for_a_lock_waits_for_all_before(
    waiting: Waiting, make: Callable[[], Any], run: Callable[..., Any]
) -> None:
    """Ten hold it for 10 ms each: nine wait, 10 to 90 ms."""
    queue = Queue(make(), trio.sleep)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(queue.hold, 9)

    run(main)
    queue.check(waiting.rows().pop("lock"))
    assert waiting.counts() == {"lock": 9}


def test_each_kind_is_told_apart(waiting: Waiting) -> None:
    async def main() -> None:
        await one_after_the_other(trio.Semaphore(2), 5)
        await one_after_the_other(trio.CapacityLimiter(1), 3)
        event, condition, lot = trio.Event(), trio.Condition(), trio.lowlevel.ParkingLot()

        async def notified() -> None:
            async with condition:
                await condition.wait()

        async def notify() -> None:
            async with condition:
                condition.notify_all()

        async def sets() -> None:
            event.set()
            lot.unpark_all()

        await both(event.wait, lot.park, notified, notify, sets)
        send, receive = trio.open_memory_channel[int](1)

        async def takes() -> None:
            assert [await receive.receive() for _ in range(4)] == [0, 1, 2, 3]

        async def puts() -> None:
            for number in range(4):
                await send.send(number)

        await both(takes, puts)
        await both(puts, takes)

    trio.run(main)
    counts = waiting.counts()
    # Who goes first where both are ready, trio throws dice for.
    assert (counts.pop("queue_get") >= 1, counts.pop("queue_put") >= 1) == (True, True)
    assert counts == {"semaphore": 3 + 2, "event": 1, "condition": 1 + 1}


def test_senders_wait_for_room_and_receivers_for_something(waiting: Waiting) -> None:
    async def main() -> None:
        send, receive = trio.open_memory_channel[int](0)

        async def puts() -> None:
            await send.send(1)

        async def takes() -> None:
            assert await receive.receive() == 1

        await both(takes, takes, puts, puts)
        assert waiting.counts() == {"queue_get": 2}
        await both(puts, puts, puts, takes, takes, takes)

    trio.run(main)
    assert waiting.counts() == {"queue_get": 2, "queue_put": 3}


def test_a_wait_on_a_condition_ends_when_the_lock_is_there(waiting: Waiting) -> None:
    """Who notifies keeps the lock for another 50 ms."""
    condition = trio.Condition()

    async def waits() -> None:
        async with condition:
            await condition.wait()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            async with condition:
                condition.notify()
                await trio.sleep(0.05)

    trio.run(main)
    assert waiting.counts() == {"condition": 1}
    assert waiting.rows()["condition"].wait_ns >= 0.05e9


def test_nobody_waits_for_what_is_free(waiting: Waiting) -> None:
    async def main() -> None:
        lock, semaphore, limiter, event = (
            trio.Lock(),
            trio.Semaphore(2),
            trio.CapacityLimiter(1),
            trio.Event(),
        )
        send, receive = trio.open_memory_channel[int](1)
        event.set()
        for number in range(100):
            async with lock, semaphore, limiter:
                await send.send(number)
                assert await receive.receive() == number
                await event.wait()
        await trio.lowlevel.checkpoint()
        await trio.sleep(0.001)

    trio.run(main)
    assert waiting.rows() == {}


def test_those_that_wait_now_and_those_that_are_cancelled(waiting: Waiting) -> None:
    seen: list[WaitRow] = []
    event = trio.Event()
    scope = trio.CancelScope()

    async def gives_up() -> None:
        with scope:
            await event.wait()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for function in (event.wait, event.wait, gives_up):
                nursery.start_soon(function)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.01)
            seen.append(waiting.rows()["event"])
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            seen.append(waiting.rows()["event"])
            event.set()

    trio.run(main)
    assert [(row.contentions, row.waiting, row.durations.count) for row in seen] == [(3, 3, 0), (3, 2, 1)]
    assert seen[0].wait_ns == 0
    assert seen[1].wait_ns >= 0.01e9
    assert waiting.counts() == {"event": 3}


def test_a_closed_channel_ends_a_wait(waiting: Waiting) -> None:
    send, receive = trio.open_memory_channel[int](0)

    async def takes() -> None:
        with pytest.raises(trio.EndOfChannel):
            await receive.receive()

    async def closes() -> None:
        send.close()

    trio.run(both, takes, closes)
    assert waiting.counts() == {"queue_get": 1}


def test_a_wait_for_a_thread_and_one_for_a_signal_are_none_for_a_lock(waiting: Waiting) -> None:
    async def main() -> None:
        limiter = trio.CapacityLimiter(1)

        async def work() -> None:
            await trio.to_thread.run_sync(lambda: None, limiter=limiter)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(work)

    trio.run(main)
    assert waiting.rows() == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_wait_that_began_before_a_fork_is_the_parents(waiting: Waiting) -> None:
    event = trio.Event()

    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(event.wait)
            await trio.testing.wait_all_tasks_blocked()
            child = os.fork()
            if not child:
                waiting.probe.reset()
                event.set()
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                rows = waiting.probe.read_waits()
                os._exit(sum(abs(row.waiting) + row.durations.count for row in rows))
            event.set()
        return child

    assert os.waitpid(trio.run(main), 0)[1] == 0
    assert waiting.counts() == {"event": 1}


def test_it_looks_as_before_and_is_put_back() -> None:
    originals = [vars(owner)[name] for owner, name in OURS]
    waiting = Waiting(native=False)
    waiting.install()
    waiting.install()
    ours = [vars(owner)[name] for owner, name in OURS]
    assert [one is other for one, other in zip(ours, originals, strict=True)] == [False] * len(OURS)
    for one, other in zip(ours, originals, strict=True):
        assert inspect.signature(one) == inspect.signature(other)
        assert inspect.iscoroutinefunction(one) == inspect.iscoroutinefunction(other)
        assert (one.__qualname__, one.__module__) == (other.__qualname__, other.__module__)
    waiting.remove()
    assert [vars(owner)[name] for owner, name in OURS] == originals


def test_removed_it_counts_nothing_also_for_who_still_holds_ours(waiting: Waiting) -> None:
    event = trio.Event()
    wait = event.wait
    waiting.remove()

    async def sets() -> None:
        event.set()

    trio.run(both, wait, sets)
    assert waiting.rows() == {}


def test_our_own_trouble_stays_ours(waiting: Waiting, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(kind: int) -> bool:
        raise RuntimeError("broken")

    waiting.probe.wait_begins = refuse  # type: ignore[misc]
    event = trio.Event()

    async def sets() -> None:
        event.set()

    trio.run(both, event.wait, event.wait, sets)
    assert [each.getMessage() for each in caplog.records] == ["a wait in trio is not counted; said once"]
