"""What AnyIO's worker threads run is counted, timed, and otherwise left alone."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio._backends._asyncio import AsyncIOBackend

from otel_concurrency.hooks.threads.anyio_threads import AnyIOThreadHook
from otel_concurrency.hooks.threads.thread_limiters import DEFAULT, LIMITED
from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.work import PoolLevel, PoolRow
from tests.conftest import LoopFactory

NAME = "run_sync_in_worker_thread"
who = contextvars.ContextVar("who", default="nobody")


def work() -> str:
    return "done"


def fail() -> None:
    raise KeyError("no such thing")


class Counting:
    """A hook, and what its probe has counted."""

    def __init__(self, *, native: bool = False) -> None:
        self.probe = make_work_probe(native=native)
        self.hook = AnyIOThreadHook(self.probe)

    def row(self, name: str = DEFAULT) -> PoolRow:
        (row,) = (row for row in self.probe.read() if (row.name, row.kind) == (name, "anyio"))
        return row

    def ended(self, name: str = DEFAULT) -> tuple[int, int, int, dict[str, int]]:
        row = self.row(name)
        return row.submitted, row.finished, row.cancelled, dict(row.failed)


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def counting(request: pytest.FixtureRequest) -> Iterator[Counting]:
    before = vars(AsyncIOBackend)[NAME]
    counting = Counting(native=request.param)
    counting.hook.install()
    yield counting
    counting.hook.remove()
    assert vars(AsyncIOBackend)[NAME] is before


@pytest.fixture
def run(lazy_loop_factory: LoopFactory) -> Callable[[Any], Any]:
    """Run a coroutine to its end."""

    def run(coroutine: Any) -> Any:
        loop = lazy_loop_factory()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()

    return run


def test_items_are_counted_by_function_and_outcome(counting: Counting, run: Callable[[Any], Any]) -> None:
    async def main() -> list[Any]:
        results: list[Any] = [
            await anyio.to_thread.run_sync(work),
            await anyio.to_thread.run_sync(functools.partial(work), limiter=anyio.CapacityLimiter(1)),
            await anyio.to_thread.run_sync(divmod, 7, 3),
        ]
        with pytest.raises(KeyError, match="no such thing"):
            await anyio.to_thread.run_sync(fail)
        return results

    assert run(main()) == ["done", "done", (2, 1)]
    assert counting.ended() == (3, 2, 0, {"KeyError": 1})
    assert counting.ended(LIMITED) == (1, 1, 0, {})
    module = work.__module__
    assert set(counting.row().run_times) == {f"{module}.work", f"{module}.fail", "divmod"}
    assert set(counting.row(LIMITED).run_times) == {f"{module}.work"}


def test_waiting_for_a_token_is_queue_time_and_running_is_not(
    counting: Counting, run: Callable[[Any], Any]
) -> None:
    """One token: while the first item holds it, the second waits. What is told is what was measured."""
    begun, ends = threading.Event(), threading.Event()
    limiters: list[anyio.CapacityLimiter] = []

    def hold() -> None:
        begun.set()
        ends.wait()

    async def main() -> tuple[list[PoolLevel], float]:
        limiters.append(anyio.CapacityLimiter(1))
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(anyio.to_thread.run_sync, hold, limiter=limiters[0]))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            group.start_soon(functools.partial(anyio.to_thread.run_sync, work, limiter=limiters[0]))
            while not limiters[0].statistics().tasks_waiting:
                await asyncio.sleep(0)
            waits_since = time.monotonic_ns()
            await asyncio.sleep(0.05)
            levels = counting.hook.levels()
            waited_ns = time.monotonic_ns() - waits_since
            ends.set()
        return levels, waited_ns

    levels, waited_ns = run(main())
    assert levels == [PoolLevel(LIMITED, "anyio", active=1, limit=1, queued=1)]
    row = counting.row(LIMITED)
    (held,) = (state for function, state in row.run_times.items() if function.endswith("hold"))
    (worked,) = (state for function, state in row.run_times.items() if function.endswith("work"))
    assert (row.queue_times.count, held.count, worked.count) == (2, 1, 1)
    assert row.queue_times.max_ns >= waited_ns
    assert held.max_ns >= waited_ns > worked.max_ns


def test_the_default_limiter_tells_its_forty_tokens(counting: Counting, run: Callable[[Any], Any]) -> None:
    async def main() -> list[PoolLevel]:
        await anyio.to_thread.run_sync(work)
        return counting.hook.levels()

    assert run(main()) == [PoolLevel(DEFAULT, "anyio", active=0, limit=40, queued=0)]
    gc.collect()
    assert counting.hook.levels() == []  # the loop is gone, and its limiter with it


def test_a_limiter_without_a_limit_has_none(counting: Counting, run: Callable[[Any], Any]) -> None:
    async def main() -> list[PoolLevel]:
        limiter = anyio.CapacityLimiter(float("inf"))
        await anyio.to_thread.run_sync(work, limiter=limiter)
        return counting.hook.levels()

    assert run(main()) == [PoolLevel(LIMITED, "anyio", active=0, limit=None, queued=0)]


def test_an_item_that_is_cancelled_before_it_begins_is_counted_so(
    counting: Counting, run: Callable[[Any], Any]
) -> None:
    begun, ends = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        ends.wait()

    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(anyio.to_thread.run_sync, hold, limiter=limiter))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            with anyio.CancelScope() as scope:
                asyncio.get_running_loop().call_soon(scope.cancel)
                await anyio.to_thread.run_sync(work, limiter=limiter)
            ends.set()

    run(main())
    gc.collect()
    assert counting.ended(LIMITED) == (2, 1, 1, {})


def test_each_item_runs_in_its_own_context_and_leaves_none_behind(
    counting: Counting, run: Callable[[Any], Any]
) -> None:
    """One worker thread serves them one after another; what an item sets is gone with it."""

    def see_and_set() -> tuple[str, int]:
        seen = who.get()
        who.set("somebody before you")
        return seen, threading.get_ident()

    async def as_whom(name: str) -> tuple[str, int]:
        who.set(name)
        return await anyio.to_thread.run_sync(see_and_set)

    async def main() -> list[tuple[str, int]]:
        seen = [await asyncio.create_task(as_whom(name)) for name in ("ann", "ben")]
        return [*seen, await anyio.to_thread.run_sync(see_and_set)]

    seen = run(main())
    assert [name for name, _ in seen] == ["ann", "ben", "nobody"]
    assert len({thread for _, thread in seen}) == 1


def test_an_exception_keeps_its_face(counting: Counting, run: Callable[[Any], Any]) -> None:
    """The same type, arguments and cause; at most one frame more in the traceback."""

    async def main() -> BaseException:
        try:
            await anyio.to_thread.run_sync(fail)
        except KeyError as error:
            return error
        raise AssertionError

    with_us = run(main())
    counting.hook.remove()
    without_us = run(main())
    assert (type(with_us), with_us.args, with_us.__cause__) == (KeyError, ("no such thing",), None)
    frames = [
        [frame.name for frame in traceback.extract_tb(each.__traceback__)] for each in (with_us, without_us)
    ]
    assert 0 <= len(frames[0]) - len(frames[1]) <= 1


def test_installed_twice_it_counts_once(counting: Counting, run: Callable[[Any], Any]) -> None:
    counting.hook.install()
    run(anyio_work())
    assert counting.ended() == (1, 1, 0, {})


async def anyio_work() -> str:
    return await anyio.to_thread.run_sync(work)


def test_removed_it_counts_nothing_even_where_somebody_held_the_replacement(
    counting: Counting, run: Callable[[Any], Any]
) -> None:
    held = getattr(AsyncIOBackend, NAME)
    counting.hook.remove()

    async def main() -> tuple[str, str]:
        return await anyio_work(), await held(work, ())

    assert run(main()) == ("done", "done")
    assert counting.row().submitted == 0 if counting.probe.read() else True
    assert repr(counting.hook) == "<AnyIOThreadHook [removed]>"


def test_a_later_patch_survives_our_removal(run: Callable[[Any], Any]) -> None:
    counting, before = Counting(), vars(AsyncIOBackend)[NAME]
    counting.hook.install()
    ours = getattr(AsyncIOBackend, NAME)
    seen = []

    async def theirs(cls: Any, func: Any, args: Any, **options: Any) -> Any:
        seen.append(func)
        return await ours(func, args, **options)

    theirs_installed = classmethod(theirs)
    setattr(AsyncIOBackend, NAME, theirs_installed)
    try:
        assert run(anyio_work()) == "done"
        counting.hook.remove()
        assert vars(AsyncIOBackend)[NAME] is theirs_installed
        assert run(anyio_work()) == "done"
    finally:
        setattr(AsyncIOBackend, NAME, before)
    assert seen == [work, work]
    assert counting.row().submitted == 1


def test_our_own_trouble_stays_ours(
    counting: Counting, run: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A probe that raises costs the count, and one log record."""

    counting.hook._pools.clear()
    assert [run(anyio_work()), run(anyio_work())] == ["done", "done"]
    assert len([record for record in caplog.records if "not counted" in record.message]) == 1


def test_what_the_original_refuses_is_refused(counting: Counting, run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        with pytest.raises(TypeError):
            await getattr(AsyncIOBackend, NAME)(work, (), nonsense=1)

    run(main())
    gc.collect()
    assert counting.ended() == (1, 0, 1, {})


LATE = """
import sys
from otel_concurrency.hooks.threads.anyio_threads import AnyIOThreadHook
from otel_concurrency.probes.pure_work import PureWorkProbe
probe = PureWorkProbe()
hook = AnyIOThreadHook(probe)
hook.install()
imported = [name for name in sys.modules if name.partition(".")[0] == "anyio"]
import anyio
async def main():
    return await anyio.to_thread.run_sync(int)
anyio.run(main)
print(imported, [(row.name, row.finished) for row in probe.read() if row.submitted])
hook.remove()
"""


def test_anyio_is_not_imported_for_our_sake_and_heard_of_when_it_is() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert ended.stdout == "[] [('default', 1)]\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_no_limiters(counting: Counting, run: Callable[[Any], Any]) -> None:
    """Whoever borrowed their tokens stayed in the parent."""

    async def main() -> int:
        await anyio.to_thread.run_sync(work)
        assert len(counting.hook.levels()) == 1
        if not (child := os.fork()):
            os._exit(len(counting.hook.levels()))
        return child

    assert os.waitpid(run(main()), 0)[1] == 0
