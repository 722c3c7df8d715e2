"""The three ways of counting tasks, held to one contract."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.tasks import TaskProbe, TaskRow
from tests.loops import run

try:
    from otel_concurrency.probes import _native
except ImportError:
    _native = None

NATIVE = pytest.param(True, id="native", marks=pytest.mark.skipif(_native is None, reason="not built here"))
PURE = pytest.param(False, id="pure")
HERE = __name__

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[NATIVE, PURE])
def probe(request: pytest.FixtureRequest) -> Iterator[TaskProbe]:
    """A probe that follows every task of the test."""
    yield from _hooked(make_task_probe(native=request.param))


@pytest.fixture(params=[NATIVE])
def native(request: pytest.FixtureRequest) -> Iterator[TaskProbe]:
    """A probe that sees steps."""
    yield from _hooked(make_task_probe(native=True))


def _hooked(probe: TaskProbe) -> Iterator[TaskProbe]:
    hook = TaskHook(probe)
    hook.install()
    try:
        yield probe
    finally:
        hook.remove()


def rows(probe: TaskProbe) -> dict[str, TaskRow]:
    """This module's rows by qualname; the loop's own tasks left out."""
    prefix = f"{HERE}."
    return {
        row.function.removeprefix(prefix): row
        for row in probe.read_rows()
        if row.function.startswith(prefix) and row.created
    }


def ends(row: TaskRow) -> tuple[int, int, int, int, dict[str, int], int]:
    return row.created, row.finished, row.cancelled, row.destroyed, dict(row.failed), row.live


async def passes() -> int:
    await asyncio.sleep(0)
    return 7


async def returns_at_once() -> int:
    return 7


async def fails() -> None:
    await asyncio.sleep(0)
    raise KeyError("x")


async def fails_at_once() -> None:
    raise ValueError("x")


async def waits_forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_every_way_to_start_a_task_is_counted(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    """`create_task` of module and loop, gather, ensure_future, as_completed and threads lead to one count."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        results = [
            await asyncio.create_task(passes()),
            await loop.create_task(passes()),
            await loop.create_task(coro=passes()),
            await asyncio.ensure_future(passes()),
            *await asyncio.gather(passes(), passes()),
            *[await first for first in asyncio.as_completed([passes()])],
        ]
        from_thread = await loop.run_in_executor(
            None, lambda: asyncio.run_coroutine_threadsafe(passes(), loop).result()
        )
        assert [*results, from_thread] == [7] * 8
        await loop.shutdown_default_executor()

    run(loop_factory, main())
    assert ends(rows(probe)["passes"]) == (8, 8, 0, 0, {}, 0)


def test_outcomes_are_told_apart(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def main() -> None:
        done = await asyncio.gather(
            passes(), returns_at_once(), fails(), fails_at_once(), return_exceptions=True
        )
        assert [type(result) for result in done] == [int, int, KeyError, ValueError]
        waiting = asyncio.create_task(waits_forever())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run(loop_factory, main())
    seen = {name: ends(row) for name, row in rows(probe).items()}
    seen.pop("test_outcomes_are_told_apart.<locals>.main")
    assert seen == {
        "passes": (1, 1, 0, 0, {}, 0),
        "returns_at_once": (1, 1, 0, 0, {}, 0),
        "fails": (1, 0, 0, 0, {"KeyError": 1}, 0),
        "fails_at_once": (1, 0, 0, 0, {"ValueError": 1}, 0),
        "waits_forever": (1, 0, 1, 0, {}, 0),
    }


def test_a_task_cancelled_before_its_first_step_is_cancelled(
    probe: TaskProbe, lazy_loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        task = asyncio.create_task(passes())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(lazy_loop_factory, main())
    assert ends(rows(probe)["passes"]) == (1, 0, 1, 0, {}, 0)


async def cancels_itself_and_returns() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def test_a_task_cancelled_in_its_last_step_is_cancelled(
    probe: TaskProbe, lazy_loop_factory: LoopFactory
) -> None:
    """Its coroutine returns, yet the task ends cancelled: the task has the last word."""

    async def main() -> None:
        task = asyncio.create_task(cancels_itself_and_returns())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(lazy_loop_factory, main())
    assert ends(rows(probe)["cancels_itself_and_returns"]) == (1, 0, 1, 0, {}, 0)


class OwnTask(asyncio.Task[Any]):
    """One that anybody could change."""


class OwnFlag(asyncio.Task[Any]):
    """One that answers for itself."""

    @property
    def _must_cancel(self) -> bool:
        return bool(super()._must_cancel)  # type: ignore[misc]


@pytest.mark.parametrize(
    "task_class",
    [asyncio.Task, OwnTask, OwnFlag, asyncio.tasks._PyTask],  # type: ignore[attr-defined]
)
def test_so_it_is_whatever_the_class_of_the_task(
    probe: TaskProbe, task_class: type[asyncio.Task[Any]]
) -> None:
    made: list[asyncio.Task[Any]] = []

    async def cancels_its_task() -> None:
        made[-1].cancel()  # 3.14 and later: `current_task` knows none of asyncio's Python tasks

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(
            lambda loop, coroutine, **given: task_class(coroutine, loop=loop, **given)  # type: ignore[arg-type]
        )
        for make in (cancels_its_task, returns_at_once, cancels_its_task):
            made.append(asyncio.create_task(make()))
            await asyncio.wait(made[-1:])
            assert isinstance(made[-1], task_class)

    asyncio.run(main())
    found = {name.rpartition(".")[2]: row for name, row in rows(probe).items()}
    assert ends(found["cancels_its_task"]) == (2, 0, 2, 0, {}, 0)
    assert ends(found["returns_at_once"]) == (1, 1, 0, 0, {}, 0)


async def suppresses_cancellation() -> str:
    try:
        await waits_forever()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    return "went on"


def test_a_suppressed_cancellation_is_no_cancellation(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def main() -> str:
        task = asyncio.create_task(suppresses_cancellation())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert run(loop_factory, main()) == "went on"
    assert ends(rows(probe)["suppresses_cancellation"]) == (1, 1, 0, 0, {}, 0)


def test_a_refused_task_is_never_counted(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    """The application sees the loop's own exception, and the coroutine stays its own."""
    loop = loop_factory()
    loop.close()
    coroutine = passes()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coroutine)
    coroutine.close()
    with pytest.raises(TypeError):
        loop.create_task()  # type: ignore[call-arg]
    assert rows(probe) == {}


def test_what_is_no_coroutine_is_refused_as_before(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="a coroutine was expected"):
            asyncio.get_running_loop().create_task(42)  # type: ignore[arg-type]

    run(loop_factory, main())


def test_a_task_destroyed_while_pending_is_told_from_a_cancelled_one(
    probe: TaskProbe, lazy_loop_factory: LoopFactory
) -> None:
    messages: list[str] = []
    loop = lazy_loop_factory()
    loop.set_exception_handler(lambda _, context: messages.append(context["message"]))

    async def main() -> None:
        task = asyncio.create_task(waits_forever())
        await asyncio.sleep(0)
        del task
        # The future it waits on has nobody else: the task is garbage, and says so.
        gc.collect()

    loop.run_until_complete(main())
    gc.collect()
    loop.close()
    assert messages == ["Task was destroyed but it is pending!"]
    assert ends(rows(probe)["waits_forever"]) == (1, 0, 0, 1, {}, 0)


def test_created_is_ends_plus_live_at_any_time(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def main() -> tuple[TaskRow, TaskRow]:
        tasks = [asyncio.create_task(waits_forever()) for _ in range(10)]
        await asyncio.sleep(0)
        before = rows(probe)["waits_forever"]
        for task in tasks[:4]:
            task.cancel()
        await asyncio.gather(*tasks[:4], return_exceptions=True)
        after = rows(probe)["waits_forever"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return before, after

    before, after = run(loop_factory, main())
    assert ends(before) == (10, 0, 0, 0, {}, 10)
    assert ends(after) == (10, 0, 4, 0, {}, 6)


def test_loops_tell_the_states_of_their_tasks(probe: TaskProbe, lazy_loop_factory: LoopFactory) -> None:
    async def spins(until: asyncio.Event) -> None:
        while not until.is_set():
            await asyncio.sleep(0)

    async def main() -> Any:
        until = asyncio.Event()
        waiting = [asyncio.create_task(waits_forever()) for _ in range(3)]
        spinning = [asyncio.create_task(spins(until)) for _ in range(2)]
        await asyncio.sleep(0)
        new = asyncio.create_task(passes())
        (loop,) = [row for row in probe.read_loops() if row.oldest_function]
        until.set()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, *spinning, new, return_exceptions=True)
        return loop

    loop = run(lazy_loop_factory, main())
    kind = "uvloop" if "uvloop" in lazy_loop_factory.__module__ else "selector"
    # main runs; two spin and one is new; three wait.
    assert (loop.loop_id, loop.loop_type, loop.running, loop.scheduled, loop.waiting) == (0, kind, 1, 3, 3)
    assert loop.oldest_function.endswith("main")
    assert loop.oldest_age_ns > 0


def test_the_oldest_task_is_found_when_older_ones_end(
    probe: TaskProbe, lazy_loop_factory: LoopFactory
) -> None:
    async def main() -> list[str]:
        first = asyncio.create_task(passes())
        second = asyncio.create_task(waits_forever())
        third = asyncio.create_task(suppresses_cancellation())
        await first
        names = [row.oldest_function for row in probe.read_loops()]
        second.cancel()
        third.cancel()
        await asyncio.gather(second, third, return_exceptions=True)
        return names

    (name,) = run(lazy_loop_factory, main())
    assert name.endswith("main")


def test_loops_in_several_threads_keep_apart(probe: TaskProbe, lazy_loop_factory: LoopFactory) -> None:
    ready = threading.Barrier(4)
    leave = threading.Barrier(4)

    async def main() -> None:
        task = asyncio.create_task(waits_forever())
        await asyncio.sleep(0)
        ready.wait(10)
        leave.wait(10)
        task.cancel()

    threads = [threading.Thread(target=run, args=(lazy_loop_factory, main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    seen = sorted(
        (row.loop_id, row.running + row.scheduled + row.waiting)
        for row in probe.read_loops()
        if row.oldest_function
    )
    leave.wait(10)
    for thread in threads:
        thread.join(10)
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert ends(rows(probe)["waits_forever"]) == (3, 0, 3, 0, {}, 0)


def test_a_loop_id_comes_back_when_its_loop_is_gone(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    for _ in range(40):
        run(loop_factory, passes())
        gc.collect()
    assert {row.loop_id for row in probe.read_loops()} <= {0, 1}


def test_loops_beyond_the_limit_share_a_row(probe: TaskProbe, lazy_loop_factory: LoopFactory) -> None:
    loops = [lazy_loop_factory() for _ in range(20)]
    tasks = [loop.create_task(waits_forever()) for loop in loops]
    seen = {row.loop_id: row.scheduled + row.waiting for row in probe.read_loops()}
    for loop, task in zip(loops, tasks, strict=True):
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
    assert seen == {**dict.fromkeys(range(16), 1), None: 4}


@pytest.mark.parametrize("native", [NATIVE, PURE])
def test_coroutines_beyond_the_limit_share_a_row(native: bool, loop_factory: LoopFactory) -> None:
    probe = make_task_probe(native=native, max_coroutines=2, max_error_types=1)
    hook = TaskHook(probe)
    hook.install()

    async def main() -> None:
        await asyncio.gather(
            passes(),
            fails(),
            fails_at_once(),
            fails(),
            fails_at_once(),
            returns_at_once(),
            return_exceptions=True,
        )

    loop = loop_factory()
    try:
        loop.run_until_complete(main())
    finally:
        hook.remove()
        loop.close()
    by_name = {row.function.rpartition(".")[2]: row for row in probe.read_rows()}
    assert set(by_name) == {"_other", "main", "passes"}
    other = by_name["_other"]
    assert (other.created, other.finished, dict(other.failed)) == (5, 1, {"ValueError": 2, "_other": 2})


def test_generator_based_and_foreign_coroutines_are_counted(
    probe: TaskProbe, loop_factory: LoopFactory
) -> None:
    @types.coroutine
    def old_style() -> Any:
        yield

    async def generates() -> Any:
        yield 1

    class Handmade:
        """A coroutine that is none of CPython's types, as Cython makes them."""

        def __init__(self) -> None:
            self._inner = passes()

        def send(self, value: Any) -> Any:
            return self._inner.send(value)

        def throw(self, *error: Any) -> Any:
            return self._inner.throw(*error)

        def close(self) -> None:
            self._inner.close()

        def __await__(self) -> Any:
            return self._inner.__await__()

    async def main() -> None:
        generator = generates()
        await generator.__anext__()
        loop = asyncio.get_running_loop()
        await loop.create_task(generator.aclose())
        await loop.create_task(Handmade())  # type: ignore[arg-type]
        if sys.version_info < (3, 12):
            await loop.create_task(old_style())

    run(loop_factory, main())
    names = {row.function: row.finished for row in probe.read_rows()}
    assert names["async_generator_athrow"] == 1
    assert names[f"{HERE}.{Handmade.__qualname__}"] == 1


def test_steps_are_counted_exactly(native: TaskProbe, loop_factory: LoopFactory) -> None:
    """A coroutine with n awaits that suspend takes n + 1 steps."""

    async def takes(steps: int) -> None:
        for _ in range(steps - 1):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(takes(1), takes(2), takes(5))

    run(loop_factory, main())
    (row,) = [row for name, row in rows(native).items() if name.endswith("takes")]
    assert (row.created, row.finished, row.steps, row.sees_steps) == (3, 3, 8, True)
    assert row.step_durations.count == 8
    assert row.step_durations.sum_ns == row.busy_ns
    assert row.start_delays.count == 3
    assert row.finished_durations.count == 3


def test_busy_time_is_the_time_inside_steps(native: TaskProbe, loop_factory: LoopFactory) -> None:
    """What a task blocks counts as busy; what it waits does not; its duration holds both."""

    async def blocks_and_waits() -> None:
        time.sleep(0.02)
        await asyncio.sleep(0.05)
        time.sleep(0.02)

    run(loop_factory, blocks_and_waits())
    (row,) = rows(native).values()
    assert 0.04e9 <= row.busy_ns < row.finished_durations.sum_ns - 0.04e9
    assert row.step_durations.max_ns >= 0.02e9
    assert row.finished_durations.sum_ns >= 0.09e9


def test_start_delay_is_what_a_task_waits_for_its_first_step(
    native: TaskProbe, lazy_loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        task = asyncio.create_task(returns_at_once())
        time.sleep(0.02)
        await task

    run(lazy_loop_factory, main())
    delays = rows(native)["returns_at_once"].start_delays
    assert (delays.count, delays.min_ns >= 0.02e9) == (1, True)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with CPython 3.12")
def test_an_eager_task_starts_at_once(native: TaskProbe) -> None:
    """Done or not when create_task returns: its first step is counted, with the time that it took."""

    async def blocks() -> None:
        time.sleep(0.05)

    async def blocks_then_waits() -> None:
        time.sleep(0.05)
        await asyncio.sleep(0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.eager_task_factory(loop, passes())  # past the loop: not ours to see
        first = asyncio.Task(blocks(), loop=loop, eager_start=True)
        assert first.done()
        loop.set_task_factory(asyncio.eager_task_factory)
        done = loop.create_task(blocks())
        assert done.done()
        await loop.create_task(blocks_then_waits())

    run(asyncio.new_event_loop, main())
    by_name = {name.rpartition(".")[2]: row for name, row in rows(native).items()}
    done, going = by_name["blocks"], by_name["blocks_then_waits"]
    assert "passes" not in by_name
    assert (done.created, done.finished, done.steps) == (1, 1, 1)
    assert (going.created, going.finished, going.steps) == (1, 1, 2)
    assert min(done.busy_ns, going.busy_ns, done.finished_durations.min_ns) >= 0.05e9
    assert max(done.start_delays.max_ns, going.start_delays.max_ns) < 0.05e9


@pytest.mark.skipif(sys.version_info < (3, 11), reason="create_task takes a context since CPython 3.11")
def test_tasks_that_share_a_context_keep_their_own_steps(
    native: TaskProbe, loop_factory: LoopFactory
) -> None:
    async def one_step() -> None:
        pass

    async def three_steps() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def five_steps() -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    async def main() -> None:
        shared = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        made = (one_step, three_steps, five_steps, three_steps, one_step)
        await asyncio.gather(*(loop.create_task(function(), context=shared) for function in made))

    run(loop_factory, main())
    steps = {
        name.rpartition(".")[2]: (row.created, row.finished, row.steps) for name, row in rows(native).items()
    }
    steps.pop("main")
    assert steps == {"one_step": (2, 2, 2), "three_steps": (2, 2, 6), "five_steps": (1, 1, 5)}


def test_a_context_entered_inside_a_step_does_not_end_it(
    native: TaskProbe, loop_factory: LoopFactory
) -> None:
    async def enters() -> None:
        context = contextvars.copy_context()
        context.run(lambda: contextvars.copy_context().run(time.sleep, 0.001))
        await asyncio.sleep(0)
        context.run(time.sleep, 0.001)

    run(loop_factory, enters())
    (row,) = rows(native).values()
    assert (row.steps, row.finished, row.busy_ns >= 0.002e9) == (2, 1, True)


def test_an_exemplar_keeps_what_was_current_at_creation(loop_factory: LoopFactory) -> None:
    """Of many tasks, the slowest of a bucket; in each way."""
    origin: contextvars.ContextVar[object] = contextvars.ContextVar("origin")
    for native in (True, False) if _native else (False,):
        probe = make_task_probe(native=native, origin=origin)
        hook = TaskHook(probe)
        hook.install()

        async def sleeps(seconds: float) -> None:
            await asyncio.sleep(seconds)

        async def main() -> None:
            tasks = []
            for number in range(5):
                origin.set({"number": number})
                tasks.append(asyncio.create_task(sleeps(0.03 if number == 3 else 0)))
            await asyncio.gather(*tasks)

        try:
            run(loop_factory, main())
        finally:
            hook.remove()
        (row,) = [row for name, row in rows(probe).items() if name.endswith("sleeps")]
        slowest = max(row.finished_durations.exemplars, key=lambda exemplar: exemplar.value_ns)
        assert slowest.origin == {"number": 3}
        assert slowest.value_ns == row.finished_durations.max_ns
        assert abs(slowest.at_unix_ns - time.time_ns()) < 60e9
        (again,) = [row for name, row in rows(probe).items() if name.endswith("sleeps")]
        assert again.finished_durations.exemplars == ()


def test_tasks_from_before_are_untracked(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    fresh = make_task_probe(native=_native is not None)
    hook = TaskHook(fresh)

    async def main() -> tuple[int, int]:
        old = [asyncio.create_task(waits_forever()) for _ in range(3)]
        hook.install()
        before = fresh.untracked()
        for task in old:
            task.cancel()
        await asyncio.gather(*old, return_exceptions=True)
        return before, fresh.untracked()

    try:
        before, after = run(loop_factory, main())
    finally:
        hook.remove()
    # main itself was there before, too
    assert (before, after) == (4, 1)
    assert fresh.untracked() == 0
    assert "waits_forever" not in rows(fresh)


def test_running_names_the_coroutine_on_each_thread(native: Any, lazy_loop_factory: LoopFactory) -> None:
    inside = threading.Event()
    leave = threading.Event()

    async def blocks() -> None:
        inside.set()
        leave.wait(10)

    thread = threading.Thread(target=run, args=(lazy_loop_factory, blocks()))
    thread.start()
    inside.wait(10)
    ((ident, name, since_ns),) = native.running()
    leave.set()
    thread.join(10)
    assert (ident, name.rpartition(".")[2]) == (thread.ident, "blocks")
    assert since_ns > 0
    assert native.running() == []
