"""The loop timers, native and pure, by the same stories: a `select` of our own, and libuv itself."""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from otel_concurrency.probes.choice import loop_timer_type
from otel_concurrency.probes.loop_time import LIBUV, LIBUV_TOTALS, LoopTimer, LoopTimes
from otel_concurrency.probes.loops import LoopIndex
from otel_concurrency.probes.pure_loop_time import PureLoopTimer

MakeTimer = Callable[[], LoopTimer]
TICK_NS = 5_000_000
needs_native = pytest.mark.skipif(loop_timer_type() is PureLoopTimer, reason="no native timer here")
needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="no epoll here")


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def make_timer(request: pytest.FixtureRequest) -> MakeTimer:
    return loop_timer_type(native=request.param)


class Selector:
    """Takes as long as it is told, and finds what it is told."""

    def __init__(self) -> None:
        self.takes_ns = 0
        self.found: Any = []
        self.asked: list[Any] = []

    def select(self, timeout: Any = None) -> Any:
        self.asked.append(timeout)
        spin(self.takes_ns)
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


def spin(ns: int) -> None:
    """Let time pass; sleeping may take longer than asked for."""
    end = time.monotonic_ns() + ns
    while time.monotonic_ns() < end:
        pass


def test_iterations_count_by_how_they_begin(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    select = timer.begin_select(selector.select)
    for timeout, found in ((None, [1, 2]), (0.5, []), (0, [3]), (0.0, []), (-1, []), (0, [])):
        selector.found = found
        assert select(timeout) is found
    timer.end()
    read = timer.read()
    assert (read.blocking, read.polling, read.empty, read.untold) == (2, 1, 3, 0)
    assert read.events == 3
    assert read.durations.count == 6
    assert selector.asked == [None, 0.5, 0, 0.0, -1, 0]


def test_waiting_is_idle_and_the_rest_is_active(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    selector.takes_ns = TICK_NS
    began = time.monotonic_ns()
    select = timer.begin_select(selector.select)
    select(None)
    spin(2 * TICK_NS)
    select(0)  # a look is no idling, however long it takes
    spin(3 * TICK_NS)
    timer.end()
    whole = time.monotonic_ns() - began
    read = timer.read()
    assert TICK_NS <= read.idle_ns < 1.5 * TICK_NS + whole - 7 * TICK_NS
    assert read.active_ns >= 6 * TICK_NS * 0.999
    assert read.active_ns + read.idle_ns <= whole * 1.001
    assert read.longest_ns >= 3 * TICK_NS * 0.999
    assert read.durations.count == 2
    assert read.durations.max_ns == read.longest_ns
    assert 5 * TICK_NS * 0.999 <= read.durations.sum_ns <= read.active_ns - TICK_NS * 0.999


def test_no_iteration_is_told_late_and_none_twice(make_timer: MakeTimer) -> None:
    """However many there were: the native timer sorts them in when there are 64."""
    timer, selector = make_timer(), Selector()
    select = timer.begin_select(selector.select)
    select(0)
    told, longest_ns = [], 0
    for number in range(1, 200):
        if number in (3, 63, 64, 65, 66, 130):
            longest_ns += TICK_NS // 5
            spin(longest_ns)
        select(0 if number % 3 else None)
        read = timer.read()
        counted = (read.durations.count, sum(read.durations.bucket_counts) + read.durations.zero_count)
        told.append((counted, read.blocking + read.empty, read.longest_ns >= longest_ns * 0.999))
        assert timer.read().durations == read.durations
        assert timer.read().delays.count >= read.delays.count
    assert told == [((number, number), number + 1, True) for number in range(1, 200)]
    timer.end()
    read = timer.read()
    assert read.durations.count == 200
    assert read.durations.sum_ns <= read.active_ns
    assert timer.read() == read


def test_another_thread_sees_the_part_so_far_and_no_jumps(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    readings = []

    def look() -> None:
        readings.append((time.monotonic_ns(), timer.read()))

    def look_from_elsewhere(*_: object) -> list[object]:
        for _ in range(2):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            spin(TICK_NS)
        return []

    select = timer.begin_select(look_from_elsewhere)
    select(None)
    look_from_elsewhere()
    timer.end()
    look()
    idle = [read.idle_ns for _, read in readings]
    active = [read.active_ns for _, read in readings]
    assert idle == sorted(idle)
    assert active == sorted(active)
    (_, idling), (_, still_idling), (first_at, busy), (then_at, still_busy), (_, over) = readings
    assert (idling.iteration_ns, still_idling.iteration_ns, over.iteration_ns) == (-1, -1, -1)
    assert still_idling.idle_ns - idling.idle_ns >= TICK_NS * 0.999
    assert 0 <= busy.iteration_ns < still_busy.iteration_ns
    # The same iteration, so both began at one moment.
    began = [at - read.iteration_ns for at, read in ((first_at, busy), (then_at, still_busy))]
    assert abs(began[0] - began[1]) < TICK_NS
    assert still_busy.longest_ns == still_busy.iteration_ns
    assert still_busy.durations.count == 0
    assert over.durations.count == 1
    assert selector.asked == []


def test_an_exception_of_select_is_its_own(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    select = timer.begin_select(selector.select)
    selector.found = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught:
        select(None)
    assert caught.value is selector.found
    timer.end()
    assert timer.read().durations.count in (0, 1)


def test_a_select_that_is_kept_goes_on_as_the_original(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    select = timer.begin_select(selector.select)
    select(0)
    timer.end()
    before = timer.read()
    assert select(0.25) is selector.found
    assert timer.read() == before
    assert select.__name__ == "select"
    assert select.__wrapped__ == selector.select


def test_runs_add_up_and_the_time_between_them_does_not_count(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    for _ in range(3):
        select = timer.begin_select(selector.select)
        select(0)
        spin(TICK_NS)
        timer.end()
        timer.end()
        spin(4 * TICK_NS)
    read = timer.read()
    assert (read.empty, read.durations.count) == (3, 3)
    assert 3 * TICK_NS * 0.999 <= read.active_ns < 12 * TICK_NS


def test_one_run_at_a_time(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    select = timer.begin_select(selector.select)
    with pytest.raises(RuntimeError, match="timed already"):
        timer.begin_select(selector.select)
    timer.end()
    assert select(0) is selector.found


def test_nothing_is_held_when_a_run_is_over(make_timer: MakeTimer) -> None:
    timer, selector = make_timer(), Selector()
    watch = weakref.ref(selector)
    select = timer.begin_select(selector.select)
    select(0)
    timer.end()
    del select, selector
    gc.collect()
    assert watch() is None


def test_a_timer_that_dies_in_a_run_with_its_selector_is_collected() -> None:
    make_timer = loop_timer_type()
    for _ in range(3):
        selector = Selector()
        selector.timer = make_timer()  # type: ignore[attr-defined]
        selector.select = selector.timer.begin_select(selector.select)  # type: ignore[method-assign, attr-defined]
        selector.select(0)
    watch = weakref.ref(selector)
    del selector
    gc.collect()
    assert watch() is None


class Epoll:
    """As a `select.epoll`: finds what it is told."""

    def __init__(self) -> None:
        self.found: Any = []
        self.asked: list[Any] = []

    def poll(self, *arguments: Any, **named: Any) -> Any:
        self.asked.append((arguments, named))
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


def begin_epoll(timer: LoopTimer, epoll: Any) -> Any:
    begin = timer.begin_epoll
    assert begin is not None
    return begin(epoll)


@needs_native
def test_iterations_with_an_epoll_count_by_how_they_begin() -> None:
    """A selector says 0 for a look, and -1 for a wait without end (CPython `selectors.py`)."""
    timer, epoll = loop_timer_type()(), Epoll()
    timed = begin_epoll(timer, epoll)
    for timeout, found in ((-1, [1, 2]), (0.5, []), (None, []), (0, [3]), (0.0, []), (0, [])):
        epoll.found = found
        assert timed.poll(timeout, 7) is found
    assert timed.poll(maxevents=3) is epoll.found
    timer.end()
    read = timer.read()
    assert (read.blocking, read.polling, read.empty, read.events) == (4, 1, 2, 3)
    assert read.durations.count == 7
    assert epoll.asked[0] == ((-1, 7), {})
    assert epoll.asked[-1] == ((), {"maxevents": 3})


@needs_native
@needs_epoll
def test_in_all_but_its_poll_it_is_the_original_epoll() -> None:
    timer, epoll = loop_timer_type()(), select.epoll()
    timed: Any = begin_epoll(timer, epoll)
    assert dir(timed) == dir(epoll)
    assert set(dir(epoll)) - set(dir(object)) - {"__module__", "poll"} <= set(vars(type(timed)))
    for name in (
        "__class__",
        "__doc__",
        "close",
        "closed",
        "fileno",
        "fromfd",
        "modify",
        "register",
        "unregister",
    ):
        assert getattr(timed, name) == getattr(epoll, name)
    assert (repr(timed), timed.poll.__name__, timed.poll.__self__) == (repr(epoll), "poll", timed)
    said = []
    for each in (timed, epoll):
        for touch in (
            lambda it: it.mark,
            lambda it: setattr(it, "mark", 5),
            weakref.ref,
            lambda it: it.poll("1"),
        ):
            with pytest.raises((AttributeError, TypeError)) as caught:
                touch(each)
            said.append((caught.type, str(caught.value)))
    assert said[:4] == said[4:]
    timer.end()
    epoll.close()


@needs_native
@needs_epoll
def test_a_real_epoll_can_be_used_through_it_and_after_it() -> None:
    timer, epoll = loop_timer_type()(), select.epoll()
    timed: Any = begin_epoll(timer, epoll)
    here, there = socket.socketpair()
    with here, there:
        timed.register(there, select.EPOLLIN)
        there_is = there.fileno()
        here.send(b"x")
        assert timed.poll(-1, 1) == [(there_is, select.EPOLLIN)]
        timed.modify(there_is, select.EPOLLOUT)
        assert timed.poll(0, 1) == [(there_is, select.EPOLLOUT)]
        timed.unregister(there_is)
        assert timed.poll(0, 1) == []
    with pytest.raises(ValueError, match="maxevents"):
        timed.poll(0, 0)
    timer.end()
    before = timer.read()
    assert (before.blocking, before.polling, before.empty, before.events) == (1, 1, 2, 2)
    assert timed.poll(0, 1) == []
    assert timer.read() == before
    del timer
    gc.collect()
    assert timed.poll(0, 1) == []
    assert timed.fileno() == epoll.fileno()
    with timed as entered:
        assert entered is epoll
        assert not timed.closed
    assert (timed.closed, epoll.closed) == (True, True)
    with pytest.raises(ValueError, match="closed"):
        timed.poll(0, 1)


@needs_native
def test_an_exception_of_poll_is_its_own() -> None:
    timer, epoll = loop_timer_type()(), Epoll()
    timed = begin_epoll(timer, epoll)
    epoll.found = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught:
        timed.poll(-1, 1)
    assert caught.value is epoll.found
    timer.end()
    assert timer.read().blocking == 1


@needs_native
def test_a_run_with_an_epoll_is_one_run_and_what_is_none_begins_none() -> None:
    timer = loop_timer_type()()
    with pytest.raises(AttributeError, match="poll"):
        begin_epoll(timer, object())
    timed = begin_epoll(timer, Epoll())
    with pytest.raises(RuntimeError, match="timed already"):
        begin_epoll(timer, Epoll())
    timer.end()
    assert timed.poll(0) == []
    assert timer.read().empty == 0


@needs_native
def test_an_epoll_that_is_let_go_of_while_it_is_asked_is_there_until_it_has_answered() -> None:
    timer = loop_timer_type()()

    class LetsGo(Epoll):
        def poll(self, *_: Any, **__: Any) -> Any:
            held.clear()
            timer.end()
            gc.collect()
            return self.found

    epoll = LetsGo()
    held = [begin_epoll(timer, epoll)]
    assert held[0].poll(-1) is epoll.found
    assert timer.read().idle_ns > 0


@needs_native
def test_nothing_is_held_when_a_run_with_an_epoll_is_over_or_its_selector_gone() -> None:
    timer, epoll = loop_timer_type()(), Epoll()
    watches = [weakref.ref(epoll)]
    begin_epoll(timer, epoll).poll(0)
    timer.end()
    epoll = Epoll()  # a run that never ends, in a cycle
    epoll.itself = begin_epoll(loop_timer_type()(), epoll)  # type: ignore[attr-defined]
    watches.append(weakref.ref(epoll))
    del epoll
    gc.collect()
    assert [watch() for watch in watches] == [None, None]


def libuv_of(loop: Any) -> tuple[Any, str]:
    import uvloop.loop

    return uvloop.loop.libuv_get_loop_t_ptr(loop), uvloop.loop.__file__


async def half_busy() -> None:
    for _ in range(5):
        spin(2 * TICK_NS)
        await asyncio.sleep(2 * TICK_NS / 1e9)


def test_libuv_tells_the_same(make_timer: MakeTimer) -> None:
    import uvloop

    loop = uvloop.new_event_loop()
    timer = make_timer()
    for _ in range(2):
        way = timer.begin_libuv(*libuv_of(loop))
        loop.run_until_complete(half_busy())
        timer.end()
    read = timer.read()
    loop.close()
    is_pure = make_timer is PureLoopTimer
    assert way == (LIBUV_TOTALS if is_pure else LIBUV)
    assert read.active_ns >= 20 * TICK_NS * 0.999
    assert read.idle_ns >= 18 * TICK_NS  # libuv's timers are whole milliseconds
    assert (read.untold > 0) == is_pure
    assert is_pure or read.blocking >= 10
    assert is_pure or read.longest_ns >= 2 * TICK_NS * 0.999
    assert timer.read() == read


@needs_native
def test_on_libuv_what_reads_sockets_is_no_idling() -> None:
    """uvloop calls protocols while libuv polls, before our second handle has its turn."""
    import uvloop

    loop = uvloop.new_event_loop()
    timer = loop_timer_type()()
    seen = []

    class Slow(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            spin(4 * TICK_NS)
            thread = threading.Thread(target=lambda: seen.append(timer.read()))
            thread.start()
            thread.join()
            loop.stop()

    here, there = socket.socketpair()
    here.setblocking(False)
    transport, _ = loop.run_until_complete(loop.create_connection(Slow, sock=here))
    timer.begin_libuv(*libuv_of(loop))
    there.send(b"x")
    loop.run_forever()
    timer.end()
    read = timer.read()
    there.close()
    transport.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    (during,) = seen
    assert read.active_ns >= 4 * TICK_NS * 0.999
    assert read.longest_ns >= 4 * TICK_NS * 0.999
    assert read.events == 1
    assert during.iteration_ns >= 4 * TICK_NS * 0.98
    assert during.idle_ns <= read.idle_ns
    assert during.active_ns <= read.active_ns


@needs_native
def test_a_libuv_loop_that_waits_is_seen_waiting() -> None:
    import uvloop

    loop = uvloop.new_event_loop()
    timer = loop_timer_type()()
    readings = []

    def look() -> None:
        deadline = time.monotonic() + 30
        while timer.read().iteration_ns != -1 and time.monotonic() < deadline:
            time.sleep(0.001)  # on its way to its first wait
        for _ in range(2):
            readings.append(timer.read())
            time.sleep(0.02)
        loop.call_soon_threadsafe(loop.stop)

    timer.begin_libuv(*libuv_of(loop))
    thread = threading.Thread(target=look)
    thread.start()
    loop.run_forever()
    timer.end()
    thread.join()
    loop.close()
    assert [read.iteration_ns for read in readings] == [-1, -1]
    assert readings[1].idle_ns - readings[0].idle_ns >= 0.02e9
    assert readings[1].active_ns - readings[0].active_ns < 0.001e9


@needs_native
@pytest.mark.parametrize("handler", ["python's", "the loop's"])
def test_a_signal_that_interrupts_libuv_makes_no_iteration_of_the_wait(handler: str) -> None:
    import signal

    import uvloop

    loop = uvloop.new_event_loop()
    timer = loop_timer_type()()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    heard = []
    if handler == "the loop's":
        loop.add_signal_handler(signal.SIGUSR1, heard.append, 1)
    timer.begin_libuv(*libuv_of(loop))
    threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1)).start()
    loop.run_until_complete(asyncio.sleep(0.15))
    timer.end()
    read = timer.read()
    if handler == "the loop's":
        loop.remove_signal_handler(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    loop.close()
    assert heard == ([1] if handler == "the loop's" else [])
    assert read.idle_ns >= 0.14e9
    assert read.longest_ns < 0.05e9


def test_libuv_loops_that_are_never_closed_and_timers_that_are_let_go_of_do_no_harm() -> None:
    """Nothing that a handle of ours points at is freed while libuv may call it."""
    program = """
        import asyncio, gc, sys, uvloop, uvloop.loop
        from otel_concurrency.probes.choice import loop_timer_type
        for native in (True, False):
            for ends in (True, False):
                for _ in range(3):
                    loop = uvloop.new_event_loop()
                    timer = loop_timer_type(native=native)()
                    timer.begin_libuv(uvloop.loop.libuv_get_loop_t_ptr(loop), uvloop.loop.__file__)
                    loop.run_until_complete(asyncio.sleep(0.01))
                    if ends:
                        timer.end()
                    del timer
                    gc.collect()
                    loop.run_until_complete(asyncio.sleep(0.01))
                del loop
                gc.collect()
        print("fine")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert "NULL" not in done.stderr


def test_loops_of_one_id_share_a_row_and_ids_are_everybodys(make_timer: MakeTimer) -> None:
    ids = LoopIndex()
    times = LoopTimes(make_timer, loops=ids)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        assert ids(loop) == (0, "selector")
        timed = times.timed(loop)
        assert times.timed(loop) is timed
        select = timed.timer.begin_select(Selector().select)
        timed.began("select")
        select(0)
        (row,) = times.read()
        assert (row.is_running, row.thread_ident) == (True, threading.get_ident())
        assert (row.ready, row.timers) == (0, 0)
        timed.ended()
        loop.close()
        del loop
        gc.collect()
    (row,) = times.read()
    assert (row.loop_id, row.loop_type, row.way, row.is_running) == (0, "selector", "select", False)
    assert row.time.empty == 3
    assert row.ready is None


def test_loops_beyond_the_limit_share_a_row(make_timer: MakeTimer) -> None:
    times = LoopTimes(make_timer)
    loops = [asyncio.new_event_loop() for _ in range(19)]
    for loop in loops:
        timed = times.timed(loop)
        timed.timer.begin_select(Selector().select)(0)
        timed.ended()
    rows = {(row.loop_id, row.loop_type): row for row in times.read()}
    assert len(rows) == 17
    assert rows[None, "other"].time.empty == 3
    for loop in loops:
        loop.close()


def test_after_a_reset_a_run_under_way_is_told_no_more_and_ids_begin_anew(make_timer: MakeTimer) -> None:
    ids = LoopIndex()
    times = LoopTimes(make_timer, loops=ids)
    parents, ours = asyncio.new_event_loop(), asyncio.new_event_loop()

    def begin(loop: asyncio.AbstractEventLoop) -> Any:
        timed = times.timed(loop)
        timed.timer.begin_select(Selector().select)(0)
        timed.began("select")
        return timed

    timed = begin(parents)
    ids.reset()
    times.reset()
    assert times.read() == []
    begin(ours)
    timed.ended()
    (row,) = times.read()
    assert (row.loop_id, row.is_running, row.time.empty) == (0, True, 1)
    for loop in (ours, parents):
        loop.close()


def test_utilization_of_a_known_load(make_timer: MakeTimer, lazy_loop_factory: Any) -> None:
    """15 ms of work in each 20: as exact as the clock, whatever the machine does beside it."""
    times = LoopTimes(make_timer)
    worked = []

    async def load() -> None:
        loop = asyncio.get_running_loop()
        begin, due = time.monotonic_ns(), loop.time()
        while time.monotonic_ns() - begin < 400_000_000:
            started = time.monotonic_ns()
            spin(15_000_000)
            worked.append(time.monotonic_ns() - started)
            due += 0.020
            await asyncio.sleep(max(0, due - loop.time()))
        worked.append(time.monotonic_ns() - begin)

    loop = lazy_loop_factory()
    timed = times.timed(loop)
    if hasattr(loop, "_selector"):
        loop._selector.select = timed.timer.begin_select(loop._selector.select)
    else:
        timed.timer.begin_libuv(*libuv_of(loop))
    loop.run_until_complete(load())
    timed.ended()
    loop.close()
    (row,) = times.read()
    whole = worked.pop()
    truth = sum(worked) / whole
    measured = row.time.active_ns / (row.time.active_ns + row.time.idle_ns)
    assert abs(measured - truth) < 0.05, (measured, truth)
