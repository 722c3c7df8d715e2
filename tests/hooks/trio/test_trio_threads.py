"""What trio's worker threads run is counted, timed, and otherwise left alone."""

from __future__ import annotations

import contextvars
import functools
import gc
import inspect
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
import trio.testing
from anyio._backends import _trio  # noqa: F401  its `run_sync` is the one from before us
from trio._core import _thread_cache

from otel_concurrency.hooks.threads.anyio_threads import AnyIOThreadHook
from otel_concurrency.hooks.threads.thread_limiters import DEFAULT, LIMITED
from otel_concurrency.hooks.threads.threads import ThreadHook
from otel_concurrency.hooks.trio.trio_threads import TrioThreadHook
from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.work import PoolLevel, PoolRow

who = contextvars.ContextVar("who", default="nobody")


def work() -> str:
    return "done"


def fail() -> None:
    raise KeyError("no such thing")


class Counting:
    """A hook, and what its probe has counted."""

    def __init__(self, *, native: bool = False) -> None:
        self.probe = make_work_probe(native=native)
        self.hook = TrioThreadHook(self.probe)

    def row(self, name: str = DEFAULT, kind: str = "trio") -> PoolRow:
        (row,) = (row for row in self.probe.read() if (row.name, row.kind) == (name, kind))
        return row

    def ended(self, name: str = DEFAULT, kind: str = "trio") -> tuple[int, int, int, dict[str, int]]:
        row = self.row(name, kind)
        return row.submitted, row.finished, row.cancelled, dict(row.failed)


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def counting(request: pytest.FixtureRequest) -> Iterator[Counting]:
    before = vars(trio.to_thread)["run_sync"]
    counting = Counting(native=request.param)
    counting.hook.install()
    yield counting
    counting.hook.remove()
    assert vars(trio.to_thread)["run_sync"] is vars(trio._path)["run_sync"] is before


def test_items_are_counted_by_function_and_outcome(counting: Counting) -> None:
    async def main() -> list[Any]:
        results: list[Any] = [
            await trio.to_thread.run_sync(work),
            await trio.to_thread.run_sync(functools.partial(work), limiter=trio.CapacityLimiter(1)),
            await trio.to_thread.run_sync(divmod, 7, 3),
        ]
        with pytest.raises(KeyError, match="no such thing"):
            await trio.to_thread.run_sync(fail)
        return results

    assert trio.run(main) == ["done", "done", (2, 1)]
    assert counting.ended() == (3, 2, 0, {"KeyError": 1})
    assert counting.ended(LIMITED) == (1, 1, 0, {})
    assert set(counting.row().run_times) == {f"{__name__}.work", f"{__name__}.fail", "divmod"}


def test_waiting_for_a_token_is_queue_time_and_running_is_not(counting: Counting) -> None:
    begun, ends = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        ends.wait()

    async def main() -> tuple[list[PoolLevel], int]:
        limiter = trio.CapacityLimiter(1)
        run_sync = functools.partial(trio.to_thread.run_sync, limiter=limiter)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_sync, hold)
            while not begun.is_set():
                await trio.sleep(0.001)
            nursery.start_soon(run_sync, work)
            while not limiter.statistics().tasks_waiting:
                await trio.lowlevel.checkpoint()
            waits_since = time.monotonic_ns()
            await trio.sleep(0.05)
            levels = counting.hook.levels()
            waited_ns = time.monotonic_ns() - waits_since
            ends.set()
        return levels, waited_ns

    levels, waited_ns = trio.run(main)
    assert levels == [PoolLevel(LIMITED, "trio", active=1, limit=1, queued=1)]
    row = counting.row(LIMITED)
    (held,) = (state for function, state in row.run_times.items() if function.endswith("hold"))
    (worked,) = (state for function, state in row.run_times.items() if function.endswith("work"))
    assert (row.queue_times.count, held.count, worked.count) == (2, 1, 1)
    assert row.queue_times.max_ns >= waited_ns
    assert held.max_ns >= waited_ns > worked.max_ns


def test_the_default_limiter_tells_its_forty_tokens(counting: Counting) -> None:
    async def main() -> list[PoolLevel]:
        await trio.to_thread.run_sync(work)
        return counting.hook.levels()

    assert trio.run(main) == [PoolLevel(DEFAULT, "trio", active=0, limit=40, queued=0)]
    gc.collect()
    assert counting.hook.levels() == []


def test_an_item_that_is_cancelled_before_it_begins_is_counted_so(counting: Counting) -> None:
    async def main() -> None:
        limiter = trio.CapacityLimiter(1)
        async with limiter:
            with trio.move_on_after(0.01):
                await trio.to_thread.run_sync(work, limiter=limiter)

    trio.run(main)
    gc.collect()
    assert counting.ended(LIMITED) == (1, 0, 1, {})


def test_an_abandoned_item_runs_to_its_end(counting: Counting) -> None:
    ends, over = threading.Event(), threading.Event()

    def hold() -> None:
        ends.wait()

    async def main() -> None:
        with trio.move_on_after(0.01):
            await trio.to_thread.run_sync(hold, abandon_on_cancel=True)
        assert counting.ended() == (1, 0, 0, {})
        ends.set()
        while counting.ended() != (1, 1, 0, {}):
            await trio.sleep(0.001)
        over.set()

    trio.run(main)
    assert over.is_set()


def test_the_context_goes_to_the_thread_and_back_and_stays_nowhere(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One new worker serves them one after another; our own hook of threads gives it nobody's context."""
    monkeypatch.setattr(_thread_cache, "THREAD_CACHE", _thread_cache.ThreadCache())
    threads = ThreadHook()
    threads.install()

    async def comes_back() -> str:
        return who.get()

    def see_and_set() -> tuple[str, str, str, int]:
        seen = who.get()
        back = trio.from_thread.run(comes_back)
        back_sync = trio.from_thread.run_sync(who.get)
        who.set("somebody before you")
        return seen, back, back_sync, threading.get_ident()

    outside: list[str] = []

    async def main() -> list[tuple[str, str, str, int]]:
        seen = []
        for name in ("ann", "ben"):
            who.set(name)
            seen.append(await trio.to_thread.run_sync(see_and_set))
        who.set("somebody who starts a thread")
        trio.lowlevel.start_thread_soon(lambda: outside.append(who.get()), lambda outcome: None)
        while not outside:
            await trio.sleep(0.001)
        return seen

    try:
        seen = trio.run(main)
    finally:
        threads.remove()
    assert [each[:3] for each in seen] == [("ann", "ann", "ann"), ("ben", "ben", "ben")]
    assert len({each[3] for each in seen}) == 1
    assert outside == ["nobody"]


def test_items_of_anyio_count_once_and_as_anyios(counting: Counting) -> None:
    anyios = AnyIOThreadHook(counting.probe)
    anyios.install()

    async def main() -> tuple[str, list[PoolLevel]]:
        return await anyio.to_thread.run_sync(work), anyios.levels()

    try:
        done, levels = anyio.run(main, backend="trio")
    finally:
        anyios.remove()
    assert (done, levels) == ("done", [PoolLevel(DEFAULT, "anyio", active=0, limit=40, queued=0)])
    assert counting.ended(DEFAULT, "anyio") == (1, 1, 0, {})
    assert set(counting.row(DEFAULT, "anyio").run_times) == {f"{__name__}.work"}
    assert counting.ended() == (0, 0, 0, {})


def test_files_and_paths_are_work_items(counting: Counting, tmp_path: Path) -> None:
    async def main() -> str:
        path = trio.Path(tmp_path / "file")
        await path.write_text("x")
        async with await trio.open_file(path) as file:
            return await file.read()

    assert trio.run(main) == "x"
    assert counting.row().finished >= 4


def told_of(function: Callable[..., Any]) -> tuple[type[BaseException], str, list[str]]:
    async def main() -> None:
        await trio.to_thread.run_sync(function)

    with pytest.raises(Exception) as raised:  # noqa: PT011  compared as a whole
        trio.run(main)
    frames = [each.name for each in traceback.extract_tb(raised.tb)]
    return raised.type, str(raised.value), [name for name in frames if name != "__call__"]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_exceptions_and_refusals_look_as_without_us(counting: Counting) -> None:
    async def wrong() -> None: ...

    with_us = [told_of(function) for function in (fail, wrong, 7)]  # type: ignore[arg-type]
    assert with_us[1][0] is TypeError
    counting.hook.remove()
    assert [(kind, text) for kind, text, _ in with_us] == [
        told_of(function)[:2]
        for function in (fail, wrong, 7)  # type: ignore[arg-type]
    ]
    assert set(told_of(fail)[2]) <= set(with_us[0][2])
    counting.hook.install()


def test_a_thread_goes_by_the_same_name_and_the_function_has_the_same_face(counting: Counting) -> None:
    def name() -> str:
        return threading.current_thread().name

    async def main() -> str:
        return await trio.to_thread.run_sync(name)

    with_us = trio.run(main), inspect.signature(trio.to_thread.run_sync), trio.to_thread.run_sync.__doc__
    assert inspect.iscoroutinefunction(trio.to_thread.run_sync) or sys.version_info < (3, 12)
    counting.hook.remove()
    assert with_us == (
        trio.run(main),
        inspect.signature(trio.to_thread.run_sync),
        trio.to_thread.run_sync.__doc__,
    )
    counting.hook.install()


def test_a_limiter_of_somebodys_own_kind_is_used_and_not_asked(counting: Counting) -> None:
    class Own:
        async def acquire_on_behalf_of(self, borrower: object) -> None: ...

        def release_on_behalf_of(self, borrower: object) -> None: ...

    own: Any = Own()

    async def main() -> str:
        return await trio.to_thread.run_sync(work, limiter=own)

    assert trio.run(main) == "done"
    assert (counting.ended(LIMITED), counting.hook.levels()) == ((1, 1, 0, {}), [])


def test_called_outside_of_a_run_it_is_counted_inside(
    counting: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    coroutine = trio.to_thread.run_sync(work)

    async def main() -> Any:
        return await coroutine

    assert trio.run(main) == "done"
    assert (counting.ended(), caplog.records) == ((1, 1, 0, {}), [])


def test_removed_it_counts_nothing_even_where_somebody_held_the_replacement(counting: Counting) -> None:
    held = trio.to_thread.run_sync
    counting.hook.remove()
    assert trio.run(held, work) == "done"
    assert counting.ended() == (0, 0, 0, {})
    assert repr(counting.hook) == "<TrioThreadHook [removed]>"


def test_a_later_patch_survives_our_removal() -> None:
    counting, before = Counting(), trio.to_thread.run_sync
    counting.hook.install()
    ours = trio.to_thread.run_sync
    seen = []

    async def theirs(function: Any, *args: Any) -> Any:
        seen.append(function)
        return await ours(function, *args)

    trio.to_thread.run_sync = theirs  # type: ignore[assignment]
    try:
        counting.hook.remove()
        assert trio.to_thread.run_sync is theirs
        assert trio.run(theirs, work) == "done"
    finally:
        trio.to_thread.run_sync = before
    assert (seen, counting.ended()) == ([work], (0, 0, 0, {}))


def test_our_own_trouble_stays_ours(counting: Counting, caplog: pytest.LogCaptureFixture) -> None:
    counting.hook._pools.clear()
    run_sync = trio.to_thread.run_sync
    assert [trio.run(run_sync, work), trio.run(run_sync, work)] == ["done", "done"]
    assert len([record for record in caplog.records if "not counted" in record.message]) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_no_limiters(counting: Counting) -> None:
    async def main() -> int:
        await trio.to_thread.run_sync(work)
        assert len(counting.hook.levels()) == 1
        if not (child := os.fork()):
            os._exit(len(counting.hook.levels()))
        return child

    assert os.waitpid(trio.run(main), 0)[1] == 0


LATE = """
import sys
from otel_concurrency.hooks.trio.trio_threads import TrioThreadHook
from otel_concurrency.probes.pure_work import PureWorkProbe
probe = PureWorkProbe()
hook = TrioThreadHook(probe)
hook.install()
before = "trio" in sys.modules, probe.read()
from trio.to_thread import run_sync
import trio
trio.run(run_sync, int)
print(before, [(row.name, row.finished) for row in probe.read() if row.submitted])
hook.remove()
"""


def test_trio_is_not_imported_for_our_sake_and_heard_of_when_it_is() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert ended.stdout == "(False, []) [('default', 1)]\n"
