"""For how long locks and semaphores are held."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.waits import holds
from otel_concurrency.hooks.waits.holds import HoldHook
from otel_concurrency.probes.holds import HoldTimes
from otel_concurrency.probes.waits import WaitNames

MS = 1_000_000


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(holds, "time", clock)
    return clock


@pytest.fixture
def times(clock: Clock) -> Iterator[HoldTimes]:
    times = HoldTimes(WaitNames())
    hook = HoldHook(times, lambda it: 0)
    hook.install()
    yield times
    hook.remove()


def held(times: HoldTimes) -> dict[str, tuple[int, int, int]]:
    """Return the number, the shortest and the longest in ms, by kind."""
    return {
        row.kind: (row.durations.count, row.durations.min_ns // MS, row.durations.max_ns // MS)
        for row in times.read_holds()
    }


def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], scenario: Callable[[], Any]) -> None:
    loop = loop_factory()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_a_lock_from_acquire_to_release(
    times: HoldTimes, clock: Clock, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scenario() -> None:
        lock = asyncio.Lock()
        async with lock:
            clock.now_ns += 5 * MS
        clock.now_ns += 100 * MS
        assert await lock.acquire() is True
        clock.now_ns += 20 * MS
        lock.release()

    run(loop_factory, scenario)
    assert held(times) == {"lock": (2, 5, 20)}


def test_places_of_a_semaphore_belong_to_who_took_them(
    times: HoldTimes, clock: Clock, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scenario() -> None:
        semaphore, go_on = asyncio.BoundedSemaphore(2), asyncio.Event()

        async def hold_long() -> None:
            async with semaphore:
                await go_on.wait()

        long = asyncio.ensure_future(hold_long())
        await asyncio.sleep(0)
        clock.now_ns += 10 * MS
        async with semaphore:
            clock.now_ns += 3 * MS
        assert held(times) == {"semaphore": (1, 3, 3)}
        go_on.set()
        await long

    run(loop_factory, scenario)
    assert held(times) == {"semaphore": (2, 3, 13)}


def test_errors_and_cancellation_are_as_before(
    times: HoldTimes, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scenario() -> None:
        lock = asyncio.Lock()
        with pytest.raises(RuntimeError, match="not acquired"):
            lock.release()
        async with lock:
            waiting = asyncio.ensure_future(lock.acquire())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert not lock.locked()

    run(loop_factory, scenario)
    assert held(times)["lock"][0] == 1


def test_what_was_taken_before_us_is_not_guessed(
    clock: Clock, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    times = HoldTimes(WaitNames())
    hook = HoldHook(times, lambda it: 0)

    async def scenario() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        hook.install()
        lock.release()

    before = vars(asyncio.Lock)["acquire"], vars(asyncio.Lock)["release"]
    run(loop_factory, scenario)
    assert inspect.iscoroutinefunction(asyncio.Lock.acquire)
    hook.remove()
    assert times.read_holds() == []
    assert (vars(asyncio.Lock)["acquire"], vars(asyncio.Lock)["release"]) == before


def test_the_holder_of_a_lock_is_known_by_its_task(clock: Clock) -> None:
    hook = HoldHook(HoldTimes(WaitNames()), lambda it: 0)
    hook.install()

    async def main() -> None:
        lock = asyncio.Lock()
        clock.now_ns = 5 * MS
        await lock.acquire()
        assert hook.holders(lock) == [(asyncio.current_task(), 5 * MS)]
        lock.release()
        assert hook.holders(lock) == []

    try:
        asyncio.run(main())
    finally:
        hook.remove()


def test_a_lock_that_is_taken_outside_of_any_loop_has_no_holder(clock: Clock) -> None:
    hook = HoldHook(HoldTimes(WaitNames()), lambda it: 0)
    hook.install()
    try:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        lock = asyncio.Lock()
        with pytest.raises(StopIteration):
            lock.acquire().send(None)
        assert hook.holders(lock) == [(None, 0)]
    finally:
        hook.remove()
        asyncio.set_event_loop(None)
        loop.close()
