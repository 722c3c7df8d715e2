"""The event loop hook: its six stories, what an application can see of it, and loops of every kind."""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from otel_concurrency.hooks.loops.event_loops import EventLoopHook
from otel_concurrency.probes.choice import loop_timer_type
from otel_concurrency.probes.loop_time import LIBUV_TOTALS, UNSEEN, LoopTimeRow, LoopTimes
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="no epoll here")


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def times(request: pytest.FixtureRequest) -> LoopTimes:
    return LoopTimes(loop_timer_type(native=request.param))


@pytest.fixture
def hook(times: LoopTimes) -> Iterator[EventLoopHook]:
    hook = EventLoopHook(times)
    yield hook
    hook.remove()


def iterations(times: LoopTimes) -> int:
    return sum(
        row.time.blocking + row.time.polling + row.time.empty + row.time.untold for row in times.read()
    )


def only(times: LoopTimes) -> LoopTimeRow:
    (row,) = times.read()
    return row


async def main() -> str:
    await asyncio.sleep(0.001)
    return "done"


def test_installed_it_counts_and_removed_it_does_not(
    hook: EventLoopHook, times: LoopTimes, loop_factory: LoopFactory
) -> None:
    run(loop_factory, main())
    assert times.read() == []
    hook.install()
    assert run(loop_factory, main()) == "done"
    counted = iterations(times)
    assert counted >= 2
    hook.remove()
    run(loop_factory, main())
    assert iterations(times) == counted


def test_removal_leaves_every_class_as_it_was(hook: EventLoopHook) -> None:
    import uvloop

    owners = (asyncio.AbstractEventLoop, asyncio.BaseEventLoop, asyncio.SelectorEventLoop, uvloop.Loop)
    before = [dict(vars(owner)) for owner in owners]
    hook.install()
    assert [dict(vars(owner)) for owner in owners] != before
    hook.remove()
    assert [dict(vars(owner)) for owner in owners] == before


def test_installed_twice_it_counts_once(hook: EventLoopHook, times: LoopTimes) -> None:
    hook.install()
    hook.install()
    loop = asyncio.new_event_loop()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert iterations(times) == 1


def test_patched_over_by_someone_else_it_falls_silent(hook: EventLoopHook, times: LoopTimes) -> None:
    original = vars(asyncio.BaseEventLoop)["run_forever"]
    hook.install()
    ours = vars(asyncio.BaseEventLoop)["run_forever"]
    seen = []

    def theirs(self: Any) -> Any:
        seen.append(self)
        return ours(self)

    asyncio.BaseEventLoop.run_forever = theirs  # type: ignore[method-assign]
    try:
        run(asyncio.new_event_loop, main())
        counted = iterations(times)
        hook.remove()
        run(asyncio.new_event_loop, main())
    finally:
        asyncio.BaseEventLoop.run_forever = original  # type: ignore[method-assign]
    assert len(seen) == 4
    assert counted == iterations(times) > 0


def test_our_own_trouble_stays_ours(loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise ZeroDivisionError

    times = LoopTimes(broken)
    hook = EventLoopHook(times)
    hook.install()
    try:
        assert run(loop_factory, main()) == "done"
        assert run(loop_factory, main()) == "done"
    finally:
        hook.remove()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_refusing_original_is_heard(
    hook: EventLoopHook, times: LoopTimes, loop_factory: LoopFactory
) -> None:
    hook.install()
    loop = loop_factory()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()
    assert times.read() == []


def test_a_loop_that_runs_refuses_another_run_and_is_timed_on(
    hook: EventLoopHook, times: LoopTimes, loop_factory: LoopFactory
) -> None:
    hook.install()

    async def nested() -> None:
        with pytest.raises(RuntimeError, match=r"(?i)already running"):
            asyncio.get_running_loop().run_forever()  # CPython 3.13 forgets then that it runs
        assert only(times).is_running

    run(loop_factory, nested())
    assert not only(times).is_running


def test_what_interrupts_a_run_comes_through_with_one_frame_more(
    hook: EventLoopHook, times: LoopTimes, loop_factory: LoopFactory
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def frames() -> list[str]:
        loop = loop_factory()
        loop.call_soon(interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            loop.run_forever()
        loop.close()
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    bare = frames()
    hook.install()
    assert frames() == [bare[0], "run_forever", *bare[1:]]
    assert not only(times).is_running


def test_while_it_runs_select_is_ours_and_afterwards_the_selectors_own(
    hook: EventLoopHook, times: LoopTimes
) -> None:
    hook.install()
    selector: Any = selectors.SelectSelector()
    loop = asyncio.SelectorEventLoop(selector)
    seen = []

    async def look() -> None:
        seen.append(("select" in vars(selector), selector.select.__name__, selector.select.__wrapped__))

    loop.run_until_complete(look())
    assert seen == [(True, "select", selector.select)]
    assert "select" not in vars(selector)
    loop.close()


@needs_epoll
@pytest.mark.parametrize("times", [True], ids=["native"], indirect=True)
def test_while_it_runs_an_epoll_is_reached_through_ours_and_afterwards_itself(
    hook: EventLoopHook, times: LoopTimes
) -> None:
    hook.install()
    selector: Any = selectors.EpollSelector()
    loop = asyncio.SelectorEventLoop(selector)
    before, seen = selector._selector, []

    async def look() -> None:
        ours = selector._selector
        seen.append((ours is before, "select" in vars(selector), repr(ours) == repr(before)))
        assert (type(ours) is select.epoll, isinstance(ours, select.epoll)) == (False, True)
        here, there = socket.socketpair()
        with here, there:
            loop.add_reader(there, lambda: seen.append(there.recv(1)))
            here.send(b"x")
            await asyncio.sleep(0.001)
            loop.remove_reader(there)

    for _ in range(2):
        loop.run_until_complete(look())
        assert selector._selector is before
    assert seen == [(False, False, True), b"x"] * 2
    assert only(times).time.events >= 2
    loop.close()
    assert before.closed


@needs_epoll
def test_a_select_that_may_ask_an_epoll_more_than_once_is_timed_as_a_whole(
    hook: EventLoopHook, times: LoopTimes
) -> None:
    hook.install()

    class Twice(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> Any:
            return super().select(0) or super().select(timeout)

    selector: Any = Twice()
    loop = asyncio.SelectorEventLoop(selector)
    before, seen = selector._selector, []
    loop.call_soon(lambda: seen.append((selector._selector is before, "select" in vars(selector))))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert seen == [(True, True)]
    assert iterations(times) == 1


@needs_epoll
def test_an_epoll_that_the_program_puts_there_meanwhile_stays(hook: EventLoopHook, times: LoopTimes) -> None:
    """As after a fork, where the child makes one of its own."""
    hook.install()
    selector: Any = selectors.EpollSelector()
    loop = asyncio.SelectorEventLoop(selector)
    theirs = select.epoll()

    async def replace() -> None:
        selector._selector.close()
        selector._selector = theirs
        for key in selector.get_map().values():
            theirs.register(key.fd, select.EPOLLIN)
        await asyncio.sleep(0.001)

    loop.run_until_complete(replace())
    assert selector._selector is theirs
    assert not only(times).is_running
    counted = iterations(times)
    loop.run_until_complete(main())
    assert selector._selector is theirs
    assert iterations(times) > counted
    loop.close()
    assert theirs.closed


@needs_epoll
def test_an_epoll_that_somebody_wraps_or_keeps_goes_on_as_the_original(
    hook: EventLoopHook, times: LoopTimes
) -> None:
    hook.install()
    selector: Any = selectors.EpollSelector()
    loop = asyncio.SelectorEventLoop(selector)
    looks = []

    class Theirs:
        def __init__(self, epoll: Any) -> None:
            self.epoll = epoll

        def poll(self, *arguments: Any) -> Any:
            looks.append(arguments)
            return self.epoll.poll(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.epoll, name)

    def wrap() -> None:
        selector._selector = Theirs(selector._selector)

    loop.call_soon(wrap)
    loop.run_until_complete(main())
    hook.remove()
    counted, looked = iterations(times), len(looks)
    loop.run_until_complete(main())
    assert looked > 0
    assert len(looks) > looked
    assert iterations(times) == counted
    loop.close()


@needs_epoll
def test_an_epoll_that_is_closed_under_a_loop_fails_as_without_us(
    hook: EventLoopHook, times: LoopTimes
) -> None:
    hook.install()
    selector: Any = selectors.EpollSelector()
    loop = asyncio.SelectorEventLoop(selector)
    before = selector._selector
    loop.call_soon(lambda: selector._selector.close())
    with pytest.raises(ValueError, match="I/O operation on closed epoll object"):
        loop.run_forever()
    assert selector._selector is before
    assert not only(times).is_running
    selector._selector = select.epoll()
    loop.close()


@pytest.mark.parametrize("kind", ["their own", "a mock", "no dict"])
def test_a_select_that_is_somebody_elses_is_left_alone(
    kind: str, hook: EventLoopHook, times: LoopTimes
) -> None:
    from unittest import mock

    hook.install()
    loop: Any = asyncio.new_event_loop()
    selector, seen = loop._selector, []
    select = selector.select

    class Slotted:
        __slots__ = ()

        def select(self, timeout: Any = None) -> Any:
            return select(timeout)

        def __getattr__(self, name: str) -> Any:
            return getattr(selector, name)

    theirs: Any = Slotted() if kind == "no dict" else selector
    if kind == "their own":
        selector.select = lambda timeout=None: select(timeout)
    elif kind == "a mock":
        theirs = mock.Mock(wraps=selector)
    loop._selector = theirs
    before = theirs.select
    loop.call_soon(lambda: seen.append(theirs.select == before))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop._selector = selector
    vars(selector).pop("select", None)
    loop.close()
    assert seen == [True]
    assert (only(times).way, iterations(times)) == (UNSEEN, 0)


def test_a_loop_that_is_none_of_those_we_know_is_told_as_unseen(
    hook: EventLoopHook, times: LoopTimes
) -> None:
    hook.install()

    class Foreign(asyncio.AbstractEventLoop):
        def is_running(self) -> bool:
            return False

        def is_closed(self) -> bool:
            return False

        def run_forever(self) -> None:
            assert only(times).is_running

    Foreign().run_forever()
    row = only(times)
    assert (row.loop_type, row.way, row.is_running) == ("other", UNSEEN, False)


def test_a_loop_that_does_not_even_tell_whether_it_runs_is_left_alone(
    hook: EventLoopHook, times: LoopTimes, caplog: pytest.LogCaptureFixture
) -> None:
    hook.install()

    class Bare(asyncio.AbstractEventLoop):
        def run_forever(self) -> None:
            assert times.read() == []

    Bare().run_forever()
    assert caplog.records == []


def test_loops_in_threads_have_rows_of_their_own(
    hook: EventLoopHook, times: LoopTimes, lazy_loop_factory: LoopFactory
) -> None:
    hook.install()
    together = threading.Barrier(3)
    seen: list[list[LoopTimeRow]] = []

    async def meet() -> None:
        together.wait()
        await asyncio.sleep(0.01)
        together.wait()

    threads = [threading.Thread(target=run, args=(lazy_loop_factory, meet())) for _ in range(2)]
    for thread in threads:
        thread.start()
    together.wait()
    seen.append(times.read())
    together.wait()
    for thread in threads:
        thread.join()
    assert [(row.loop_id, row.is_running) for row in seen[0]] == [(0, True), (1, True)]
    assert {row.thread_ident for row in seen[0]} == {thread.ident for thread in threads}
    assert [row.is_running for row in times.read()] == [False, False]


def test_removed_while_a_loop_runs_it_lets_go_at_once(
    hook: EventLoopHook, times: LoopTimes, loop_factory: LoopFactory
) -> None:
    hook.install()

    async def remove() -> None:
        loop: Any = asyncio.get_running_loop()
        hook.remove()
        if hasattr(loop, "_selector"):
            assert "select" not in vars(loop._selector)
            assert type(vars(loop._selector).get("_selector")) is getattr(select, "epoll", type(None))
        await asyncio.sleep(0.001)

    run(loop_factory, remove())
    assert not only(times).is_running
    hook.install()
    assert run(loop_factory, main()) == "done"


def test_run_after_run_with_a_new_loop_each_stays_one_row(
    hook: EventLoopHook, times: LoopTimes, lazy_loop_factory: LoopFactory
) -> None:
    hook.install()
    counts = []
    for _ in range(5):
        run(lazy_loop_factory, main())
        counts.append(iterations(times))
    assert counts == sorted(set(counts))
    assert only(times).loop_id == 0


def test_the_first_wait_of_each_new_loop_is_idle(
    hook: EventLoopHook, times: LoopTimes, loop_factory: LoopFactory
) -> None:
    """The kernel interrupts the first waits of a libuv loop for work on the ring of the one before."""
    hook.install()
    for _ in range(20):
        run(loop_factory, asyncio.sleep(0.02))
    if only(times).way == LIBUV_TOTALS:  # libuv's total has forgotten what it was interrupted in
        pytest.skip("only the native timer sees single waits")
    assert only(times).time.idle_ns >= 0.9 * 20 * 0.02e9


def test_a_loop_that_nests_its_iterations(hook: EventLoopHook, times: LoopTimes) -> None:
    """As nest_asyncio does: `_run_once` inside a callback."""
    hook.install()
    loop: Any = asyncio.new_event_loop()

    def nest() -> None:
        loop.call_soon(lambda: None)
        loop._run_once()
        loop.stop()

    loop.call_soon(nest)
    loop.run_forever()
    loop.close()
    assert iterations(times) == 2
    assert only(times).time.durations.count == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_it_runs_counts_from_zero_in_the_child(
    hook: EventLoopHook, times: LoopTimes, lazy_loop_factory: LoopFactory
) -> None:
    hook.install()

    async def fork() -> int:
        await asyncio.sleep(0.001)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                times.reset()
                asyncio._set_running_loop(None)
                run(asyncio.new_event_loop, main())
                row = only(times)
                code = 0 if not row.is_running and 0 < row.time.blocking < 5 else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])  # noqa: ASYNC222

    assert run(lazy_loop_factory, fork()) == 0


def test_cpu_blocked_and_queue_of_a_running_loop(
    hook: EventLoopHook, times: LoopTimes, lazy_loop_factory: LoopFactory
) -> None:
    hook.install()
    seen = SimpleNamespace()

    async def block() -> None:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(60, print)
        loop.call_soon(lambda: None)
        loop.call_soon(lambda: None)
        end = time.thread_time_ns() + 30_000_000
        while time.thread_time_ns() < end:
            pass
        time.sleep(0.05)
        seen.row = only(times)
        handle.cancel()

    run(lazy_loop_factory, block())
    row = seen.row
    assert (row.ready, row.timers) == ((2, 1) if row.loop_type == "selector" else (None, None))
    if sys.platform == "linux":
        assert row.use.cpu_ns >= 30_000_000 * 0.99
        assert row.use.runqueue_ns is not None
        # What the thread computes on its way into the sleep, or on its way out, is CPU time of these 50 ms.
        computed_ns = row.use.cpu_ns - 30_000_000
        assert 50_000_000 * 0.99 - computed_ns <= row.use.blocked_ns
        assert row.use.blocked_ns <= row.time.active_ns - 30_000_000 * 0.99
