"""What each run of trio does with its time, held against an instrument of trio's own and the clock."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from trio._core import _run

from otel_concurrency.hooks.loops.event_loops import EventLoopHook
from otel_concurrency.hooks.trio.trio_loops import TrioLoopHook
from otel_concurrency.probes.choice import loop_timer_type
from otel_concurrency.probes.loop_time import SELECT, LoopTimeRow, LoopTimes, TimedLoop
from tests.hooks.trio_runs import run_as_guest

NAMES = ("get_events", "close")


class Observer:
    """Keeps which runs began and ended."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, bool]] = []

    def loop_began(self, timed: TimedLoop) -> None:
        self.heard.append(("began", timed.loop_type, timed.is_running))

    def loop_ended(self, timed: TimedLoop) -> None:
        self.heard.append(("ended", timed.loop_type, timed.is_running))


class Waits(trio.abc.Instrument):
    """Counts the waits of a run by itself."""

    def __init__(self) -> None:
        self.blocking = self.polls = 0

    def after_io_wait(self, timeout: float) -> None:
        if timeout > 0:
            self.blocking += 1
        else:
            self.polls += 1


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def times(request: pytest.FixtureRequest) -> LoopTimes:
    return LoopTimes(loop_timer_type(native=request.param))


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def hook(times: LoopTimes, observer: Observer) -> Iterator[TrioLoopHook]:
    before = [vars(_run.TheIOManager)[name] for name in NAMES]
    loops = EventLoopHook(times)
    loops.observers = (observer,)
    hook = TrioLoopHook(times, loops)
    hook.install()
    yield hook
    hook.remove()
    assert [vars(_run.TheIOManager)[name] for name in NAMES] == before


def only(times: LoopTimes) -> LoopTimeRow:
    (row,) = times.read()
    return row


async def waits(seconds: float) -> None:
    await trio.sleep(seconds)


@pytest.mark.usefixtures("hook")
def test_every_iteration_is_counted_by_how_it_began(times: LoopTimes) -> None:
    told = Waits()

    async def main() -> None:
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        for _ in range(3):
            await trio.sleep(0.001)

    trio.run(main, instruments=[told])
    row = only(times)
    assert (row.loop_id, row.loop_type, row.way, row.is_running) == (0, "trio", SELECT, False)
    assert row.time.blocking == told.blocking >= 3
    assert row.time.polling + row.time.empty == told.polls > 20
    # The last iteration ends with the run.
    assert row.time.durations.count == told.blocking + told.polls


@pytest.mark.usefixtures("hook")
def test_active_and_idle_are_the_times_of_a_known_load(times: LoopTimes) -> None:
    async def main() -> tuple[int, int]:
        idle_ns = active_ns = 0
        for _ in range(5):
            began_ns = time.monotonic_ns()
            await trio.sleep(0.02)
            waited_ns = time.monotonic_ns()
            time.sleep(0.01)
            idle_ns += waited_ns - began_ns
            active_ns += time.monotonic_ns() - waited_ns
        return active_ns, idle_ns

    began_ns = time.monotonic_ns()
    active_ns, idle_ns = trio.run(main)
    wall_ns = time.monotonic_ns() - began_ns
    row = only(times)
    assert active_ns <= row.time.active_ns <= wall_ns - row.time.idle_ns
    assert 100_000_000 <= row.time.idle_ns <= idle_ns
    assert row.time.longest_ns >= 10_000_000


@pytest.mark.usefixtures("hook")
def test_what_a_wait_found_is_counted(times: LoopTimes) -> None:
    """Ten bytes, one at a time, each of which somebody waits for."""

    async def main() -> None:
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.lowlevel.wait_readable, here)
                    await trio.testing.wait_all_tasks_blocked()
                    there.send(b"x")
                here.recv(1)

    trio.run(main)
    assert only(times).time.events >= 10


@pytest.mark.usefixtures("hook")
def test_a_run_tells_of_its_line_and_its_deadlines(times: LoopTimes) -> None:
    told: list[LoopTimeRow] = []

    async def main() -> None:
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits, 60)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(waits, 60)
                nursery.start_soon(waits, 60)
                told.append(only(times))
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert (told[0].is_running, told[0].ready, told[0].timers) == (True, 2, 2)
    assert told[0].thread_ident == threading.get_ident()
    assert told[0].time.iteration_ns > 0


@pytest.mark.usefixtures("hook")
def test_runs_in_threads_have_rows_of_their_own_and_later_ones_go_on_with_them(times: LoopTimes) -> None:
    both = threading.Barrier(2)

    async def main() -> None:
        both.wait()
        await trio.sleep(0.001)
        both.wait()

    for _ in range(2):
        threads = [threading.Thread(target=trio.run, args=(main,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = times.read()
    assert {(row.loop_type, row.is_running) for row in rows} == {("trio", False)}
    assert sum(row.time.blocking for row in rows) >= 4


def test_observers_hear_of_each_run(hook: TrioLoopHook, observer: Observer) -> None:
    trio.run(waits, 0)
    with pytest.raises(KeyError):
        trio.run({}.__getitem__, "x")
    assert observer.heard == [("began", "trio", True), ("ended", "trio", True)] * 2
    assert repr(hook).startswith("<TrioLoopHook 0 running, [[<Patch EpollIOManager.get_events")


def test_a_guest_run_is_left_alone(hook: TrioLoopHook, times: LoopTimes, observer: Observer) -> None:
    """It waits in other threads; its host's loop is the one whose time is spent."""
    assert run_as_guest(waits, 0.001) is None
    assert (times.read(), observer.heard) == ([], [])
    assert hook._waits == {}


def test_removed_while_it_runs_it_lets_go_at_once(hook: TrioLoopHook, times: LoopTimes) -> None:
    counted: list[LoopTimeRow] = []

    async def main() -> str:
        await trio.sleep(0.001)
        hook.remove()
        counted.append(only(times))
        await trio.sleep(0.001)
        return "done"

    assert trio.run(main) == "done"
    assert counted[0].time.blocking > 0
    assert only(times).time.blocking == counted[0].time.blocking
    trio.run(waits, 0)
    assert only(times).time.blocking == counted[0].time.blocking


def test_a_run_under_way_is_joined_at_its_next_wait(times: LoopTimes) -> None:
    hook = TrioLoopHook(times, EventLoopHook(times))

    async def main() -> None:
        hook.install()
        await trio.sleep(0.001)
        await trio.sleep(0.001)

    try:
        trio.run(main)
    finally:
        hook.remove()
    assert only(times).time.blocking >= 2


@pytest.mark.usefixtures("hook")
def test_our_own_trouble_stays_ours(times: LoopTimes, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(loop: Any) -> Any:
        raise RuntimeError("broken")

    times.timed = refuse  # type: ignore[method-assign]
    assert [trio.run(waits, 0), trio.run(waits, 0)] == [None, None]
    assert [each.getMessage().partition(";")[0] for each in caplog.records] == [
        "Timing runs of trio failed and is switched off"
    ]


def test_what_ends_a_run_comes_through_as_it_does_without_us(hook: TrioLoopHook) -> None:
    async def main() -> None:
        await trio.sleep(0.001)
        raise KeyboardInterrupt

    def frames() -> list[str]:
        with pytest.raises(KeyboardInterrupt) as raised:
            trio.run(main)
        return [each.name for each in traceback.extract_tb(raised.tb)]

    with_us = frames()
    hook.remove()
    assert with_us == frames()
    hook.install()


def test_patched_over_by_someone_else_it_falls_silent(times: LoopTimes) -> None:
    hook, before = TrioLoopHook(times, EventLoopHook(times)), vars(_run.TheIOManager)["get_events"]
    hook.install()
    ours = _run.TheIOManager.get_events
    calls = []

    def theirs(self: Any, timeout: float) -> Any:
        calls.append(timeout)
        return ours(self, timeout)

    _run.TheIOManager.get_events = theirs  # type: ignore[method-assign]
    try:
        hook.remove()
        assert _run.TheIOManager.get_events is theirs
        trio.run(waits, 0.001)
    finally:
        _run.TheIOManager.get_events = before  # type: ignore[method-assign]
    assert len(calls) >= 2
    assert times.read() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.usefixtures("hook")
def test_a_run_that_was_under_way_at_a_fork_is_the_parents(times: LoopTimes) -> None:
    async def main() -> int:
        await trio.sleep(0.001)
        if child := os.fork():
            return child
        times.reset()
        await trio.lowlevel.checkpoint()
        os._exit(len(times.read()))
        return 0

    assert os.waitpid(trio.run(main), 0)[1] == 0


def test_asyncio_inside_the_same_process_keeps_its_own_row(hook: TrioLoopHook, times: LoopTimes) -> None:
    loops = EventLoopHook(times)
    loops.install()
    try:
        asyncio.run(asyncio.sleep(0))
        trio.run(waits, 0)
    finally:
        loops.remove()
    assert sorted(row.loop_type for row in times.read()) == ["selector", "trio"]
