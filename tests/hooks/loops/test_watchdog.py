"""The watching thread: there with loops, gone at a fork and at removal, switched off by its own trouble."""

from __future__ import annotations

import _thread
import asyncio
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_concurrency.hooks.loops.event_loops import EventLoopHook
from otel_concurrency.hooks.loops.watchdog import Watchdog, WatchedRun
from otel_concurrency.probes import quiet_thread
from otel_concurrency.probes.choice import loop_timer_type
from otel_concurrency.probes.gil import GilProbe
from otel_concurrency.probes.loop_time import LoopTimes
from otel_concurrency.probes.thread_states import is_internal
from otel_concurrency.probes.watch import Wake, make_watch

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
NEVER_NS = 3_600_000_000_000


class Ticks:
    """A listener that remembers how many loops ran at each tick, and comes again at once."""

    def __init__(self) -> None:
        self.loops: list[int] = []
        self.ended: list[WatchedRun] = []
        self.caught_up: list[tuple[int, int, int]] = []
        self.stopped = 0
        self.error: Exception | None = None

    def tick(
        self, runs: tuple[WatchedRun, ...], wake: Wake, ended: tuple[WatchedRun, ...] = ()
    ) -> float | None:
        if self.error:
            raise self.error
        self.loops.append(len(runs))
        self.ended += ended
        return 0.001

    def catch_up(self, runs: tuple[WatchedRun, ...], ended: tuple[WatchedRun, ...]) -> None:
        self.caught_up.append((threading.get_ident(), len(runs), len(ended)))

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def watchdog(
    request: pytest.FixtureRequest, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watchdog]:
    """Installed, and told of the loops that run."""
    monkeypatch.setattr("otel_concurrency.hooks.loops.watchdog.TICK_S", (0.001, 0.002))
    watchdog = Watchdog(
        ticks, lambda: make_watch(native=request.param), threshold_ns=NEVER_NS, gil=GilProbe()
    )
    hook = EventLoopHook(LoopTimes(loop_timer_type(native=request.param)))
    hook.observers = (watchdog,)
    watchdog.install()
    hook.install()
    yield watchdog
    hook.remove()
    watchdog.remove()


def threads() -> list[int]:
    return list(quiet_thread.native_ids)


async def until(is_so: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < ends
        await asyncio.sleep(0.001)


def run(loop_factory: LoopFactory, main: Callable[[], object]) -> None:
    """Run on a loop; `asyncio.run` would run three times."""
    loop = loop_factory()
    try:
        loop.run_until_complete(main())  # type: ignore[arg-type]
    finally:
        loop.close()


@pytest.mark.usefixtures("watchdog")
def test_it_starts_with_the_first_loop_and_is_known_as_ours(
    lazy_loop_factory: LoopFactory, ticks: Ticks
) -> None:
    assert threads() == []
    before = [thread for thread in threading.enumerate() if not is_internal(thread)]
    run(lazy_loop_factory, lambda: until(lambda: ticks.loops))
    assert len(threads()) == 1
    assert [thread for thread in threading.enumerate() if not is_internal(thread)] == before
    assert set(ticks.loops) == {1}


@pytest.mark.usefixtures("watchdog")
@pytest.mark.parametrize("watchdog", [True], indirect=True)
def test_a_program_that_counts_threads_does_not_find_it(lazy_loop_factory: LoopFactory, ticks: Ticks) -> None:
    if not make_watch().sees_stalls:
        pytest.skip("no native probes here")
    before = _thread._count(), list(threading._dangling), threading.active_count()  # type: ignore[attr-defined]
    run(lazy_loop_factory, lambda: until(lambda: ticks.loops))
    assert len(threads()) == 1
    after = _thread._count(), list(threading._dangling), threading.active_count()  # type: ignore[attr-defined]
    assert after == before


@pytest.mark.usefixtures("watchdog")
def test_without_a_loop_it_sleeps_for_good(lazy_loop_factory: LoopFactory, ticks: Ticks) -> None:
    run(lazy_loop_factory, lambda: until(lambda: ticks.loops))
    [thread] = threads()
    time.sleep(0.05)  # a tick that was under way
    assert len(ticks.ended) == 1  # it came once more, for what that run has left to be told
    before = len(ticks.loops)
    time.sleep(0.1)
    assert len(ticks.loops) == before
    run(lazy_loop_factory, lambda: until(lambda: len(ticks.loops) > before))
    assert threads() == [thread]


def test_removal_ends_it_and_loops_run_on(
    lazy_loop_factory: LoopFactory, ticks: Ticks, watchdog: Watchdog
) -> None:
    async def main() -> None:
        await until(lambda: ticks.loops)
        watchdog.remove()
        assert threads() == []
        assert ticks.stopped == 1
        await asyncio.sleep(0)

    run(lazy_loop_factory, main)
    run(lazy_loop_factory, lambda: asyncio.sleep(0))
    assert threads() == []
    assert repr(watchdog) == "<Watchdog [removed, 0 loops]>"


def test_who_ends_a_program_can_have_it_tell_what_is_over(
    loop_factory: LoopFactory, ticks: Ticks, watchdog: Watchdog
) -> None:
    async def main() -> None:
        await until(lambda: ticks.loops)
        watchdog.catch_up()

    run(loop_factory, main)
    watchdog.remove()
    watchdog.catch_up()
    assert [(ident, loops) for ident, loops, _ in ticks.caught_up] == [(threading.get_ident(), 1)]


@pytest.mark.usefixtures("watchdog")
def test_its_own_trouble_is_logged_once_and_ends_it(
    lazy_loop_factory: LoopFactory, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    ticks.error = LookupError("ours")
    with caplog.at_level(logging.ERROR):
        run(lazy_loop_factory, lambda: until(lambda: ticks.stopped))
        run(lazy_loop_factory, lambda: asyncio.sleep(0.01))
    assert [record.name for record in caplog.records] == ["otel_concurrency.hooks.loops.watchdog"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("watchdog")
def test_it_is_gone_at_a_fork_and_comes_back_in_both(lazy_loop_factory: LoopFactory, ticks: Ticks) -> None:
    """CPython 3.12 and later warn of a fork with threads: the only one here is the watchdog's."""
    # CPython asks the kernel, which also knows of threads that `threading` does not; other tests leave such.
    tasks = Path("/proc/self/task")
    is_alone = tasks.exists() and len(list(tasks.iterdir())) == 1

    async def main() -> None:
        await until(lambda: ticks.loops)
        assert len(threads()) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error" if is_alone else "ignore")
            pid = os.fork()
        if not pid:
            os._exit(in_child(lazy_loop_factory, ticks))
        ticks.loops.clear()
        await until(lambda: ticks.loops)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # noqa: ASYNC222

    run(lazy_loop_factory, main)


def in_child(loop_factory: LoopFactory, ticks: Ticks) -> int:
    if threads():
        return 1
    ticks.loops.clear()
    asyncio._set_running_loop(None)
    run(loop_factory, lambda: until(lambda: ticks.loops))
    return 0 if len(threads()) == 1 else 2
