"""The task hook: its six stories, and what an application can see of it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.tasks import TaskProbe
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


async def one() -> int:
    await asyncio.sleep(0)
    return 1


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> TaskProbe:
    return make_task_probe(native=request.param)


@pytest.fixture
def hook(probe: TaskProbe) -> Iterator[TaskHook]:
    hook = TaskHook(probe)
    yield hook
    hook.remove()


def created(probe: TaskProbe) -> int:
    return sum(row.created for row in probe.read_rows() if row.function == f"{__name__}.one")


async def main() -> int:
    return await asyncio.get_running_loop().create_task(one())


def test_installed_it_counts_and_removed_it_does_not(
    hook: TaskHook, probe: TaskProbe, loop_factory: LoopFactory
) -> None:
    run(loop_factory, main())
    assert created(probe) == 0
    hook.install()
    run(loop_factory, main())
    assert created(probe) == 1
    hook.remove()
    run(loop_factory, main())
    assert created(probe) == 1


def test_removal_leaves_every_class_as_it_was(hook: TaskHook) -> None:
    import uvloop

    owners = (asyncio.AbstractEventLoop, asyncio.BaseEventLoop, asyncio.SelectorEventLoop, uvloop.Loop)
    before = [dict(vars(owner)) for owner in owners]
    hook.install()
    assert [dict(vars(owner)) for owner in owners] != before
    hook.remove()
    assert [dict(vars(owner)) for owner in owners] == before


def test_installed_twice_it_counts_once(hook: TaskHook, probe: TaskProbe, loop_factory: LoopFactory) -> None:
    hook.install()
    hook.install()
    run(loop_factory, main())
    assert created(probe) == 1


def test_a_method_kept_from_before_the_removal_is_silent(
    hook: TaskHook, probe: TaskProbe, loop_factory: LoopFactory
) -> None:
    hook.install()
    loop = loop_factory()
    create_task = loop.create_task
    hook.remove()
    assert loop.run_until_complete(create_task(one())) == 1
    loop.close()
    assert created(probe) == 0


def test_patched_over_by_someone_else_it_falls_silent(hook: TaskHook, probe: TaskProbe) -> None:
    seen = []
    original = vars(asyncio.BaseEventLoop)["create_task"]
    hook.install()
    ours = vars(asyncio.BaseEventLoop)["create_task"]

    def theirs(self: Any, coro: Any, **kwargs: Any) -> Any:
        seen.append(coro.__qualname__)
        return ours(self, coro, **kwargs)

    asyncio.BaseEventLoop.create_task = theirs  # type: ignore[method-assign, assignment]
    try:
        run(asyncio.new_event_loop, main())
        hook.remove()
        run(asyncio.new_event_loop, main())
    finally:
        asyncio.BaseEventLoop.create_task = original  # type: ignore[method-assign]
    assert seen.count("one") == 2
    assert created(probe) == 1


def test_a_refusing_original_is_heard(hook: TaskHook, probe: TaskProbe, loop_factory: LoopFactory) -> None:
    """The exception is the loop's own, its traceback one frame longer at most."""
    loop = loop_factory()
    loop.close()

    def refused() -> list[str]:
        coroutine = one()
        with pytest.raises(RuntimeError, match="Event loop is closed") as caught:
            loop.create_task(coroutine)
        coroutine.close()
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    bare = refused()
    hook.install()
    observed = refused()
    frames = 0 if probe.way != "pure" and sys.version_info < (3, 11) else 1
    ours = ["create_task"] * frames
    assert observed == [bare[0], *ours, *bare[1:]]
    assert created(probe) == 0


def test_a_task_factory_stays_in_place_and_is_called_as_before(
    hook: TaskHook, probe: TaskProbe, lazy_loop_factory: LoopFactory
) -> None:
    calls: list[tuple[str, list[str]]] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        calls.append((coro.__qualname__, sorted(kwargs)))
        return asyncio.Task(coro, loop=loop, **kwargs)

    def calls_made() -> list[tuple[str, list[str]]]:
        calls.clear()
        loop = lazy_loop_factory()
        loop.set_task_factory(factory)
        assert loop.run_until_complete(main()) == 1
        assert loop.get_task_factory() is factory
        loop.close()
        return list(calls)

    bare = calls_made()
    hook.install()
    assert calls_made() == bare
    assert created(probe) == 1


def test_a_loop_class_made_later_is_covered(hook: TaskHook, probe: TaskProbe) -> None:
    """On first sight: when the class is defined, whoever calls it."""
    hook.install()

    class Late(asyncio.SelectorEventLoop):
        def create_task(self, coro: Any, **kwargs: Any) -> Any:
            return super().create_task(coro, **kwargs)

    class Foreign(asyncio.AbstractEventLoop):
        """A loop that shares nothing with asyncio's own."""

        def create_task(self, coro: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            return inner.create_task(coro, **kwargs)

    class Child(Foreign):
        pass

    for loop_class, expected in ((Late, 1), (Foreign, 2), (Child, 3)):
        inner = asyncio.SelectorEventLoop()
        loop = inner if loop_class in (Foreign, Child) else loop_class()
        maker = loop_class() if loop is inner else loop
        assert inner.is_closed() is False
        assert loop.run_until_complete(maker.create_task(one())) == 1
        loop.close()
        inner.close()
        assert created(probe) == expected
    hook.remove()
    assert not hasattr(vars(Foreign)["create_task"], "__wrapped__")
    assert "create_task" not in vars(Child)


def test_a_default_of_a_loop_class_of_the_applications_own_stands(hook: TaskHook, probe: TaskProbe) -> None:
    class Named(asyncio.SelectorEventLoop):
        def create_task(self, coro: Any, *, name: Any = "nobody") -> Any:  # type: ignore[override]
            names.append(name)
            return asyncio.Task(coro, loop=self, name=name)

    class Loop(asyncio.AbstractEventLoop):
        create_task = Named.create_task  # type: ignore[assignment]

    names: list[str | None] = []
    hook.install()
    loop = asyncio.SelectorEventLoop()
    for arguments in ({}, {"name": None}, {"name": "ann"}):
        loop.run_until_complete(Loop.create_task(loop, one(), **arguments))  # type: ignore[arg-type]
    loop.close()
    assert names == ["nobody", None, "ann"]
    assert created(probe) == 3


def test_signatures_and_names_are_those_of_the_originals(hook: TaskHook) -> None:
    import uvloop

    def faces() -> list[tuple[str, str, str | None, str]]:
        return [
            (method.__name__, method.__qualname__, method.__doc__, str(inspect.signature(method)))
            for method in (asyncio.BaseEventLoop.create_task, uvloop.Loop.create_task)
        ]

    before = faces()
    hook.install()
    assert faces() == before


def test_a_task_shows_the_application_its_own_face(hook: TaskHook, lazy_loop_factory: LoopFactory) -> None:
    """Its coroutine, name, repr, stack and wait chain read as if we were absent."""

    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    async def look() -> dict[str, object]:
        coroutine = waits()
        task = asyncio.get_running_loop().create_task(coroutine, name="mine")
        await asyncio.sleep(0)
        seen: Any = task.get_coro()
        (frame,) = task.get_stack()
        face = {
            "repr": repr(task).replace(hex(id(task)), "").partition("wait_for")[0],
            "equal": seen == coroutine and coroutine == seen and hash(seen) == hash(coroutine),
            "class": seen.__class__.__name__,
            "is": (
                inspect.iscoroutine(seen),
                asyncio.iscoroutine(seen),
                inspect.isawaitable(seen),
                inspect.getcoroutinestate(seen),
            ),
            "names": (seen.__name__, seen.__qualname__, seen.cr_code.co_name),
            "repr of coroutine": repr(seen) == repr(coroutine),
            "await": type(seen.cr_await).__name__,
            "frame": frame.f_code.co_name,
            "dir": dir(seen) == dir(coroutine),
        }
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return face

    bare = run(lazy_loop_factory, look())
    hook.install()
    assert run(lazy_loop_factory, look()) == bare
    assert bare["names"] == ("waits", waits.__qualname__, "waits")
    assert bare["equal"] is True


@pytest.mark.parametrize(
    "broken", ["pure.PureTaskProbe.row_of", "pure.PureTaskProbe.loop_row", "histogram.Histogram.sort_in"]
)
def test_trouble_of_ours_never_reaches_the_application(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Counting is switched off with one log record; tasks go on, and none is made twice."""

    def fails(*args: object) -> None:
        raise LookupError("ours")

    monkeypatch.setattr(f"otel_concurrency.probes.{broken}", fails)
    monkeypatch.setattr("otel_concurrency.probes.pure_creation.MAX_PENDING", 1)
    hook = TaskHook(make_task_probe(native=False))
    hook.install()
    try:
        for _ in range(3):
            assert run(asyncio.new_event_loop, main()) == 1
    finally:
        hook.remove()
    assert [record.getMessage() for record in caplog.records] == [
        "Counting tasks failed and is switched off; the program goes on without it"
    ]


async def of_a_group() -> None:
    await asyncio.sleep(0)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with CPython 3.11")
def test_what_fails_in_an_anyio_task_group_is_in_no_cycle(
    hook: TaskHook, lazy_loop_factory: LoopFactory
) -> None:
    """As in AnyIO's own `test_exception_refcycles_parent_task`: nothing is left to a collection."""

    class DoneError(Exception):
        pass

    async def fails() -> None:
        async with anyio.create_task_group():
            raise DoneError

    async def main() -> list[Any]:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(fails)
        except BaseException as error:
            [inner] = error.exceptions  # type: ignore[attr-defined]
            [kept] = inner.exceptions
            del inner
        del group
        return [each for each in gc.get_referrers(kept) if not inspect.iscoroutine(each)]  # this one, that is

    hook.install()
    gc.disable()
    try:
        assert run(lazy_loop_factory, main()) == []
    finally:
        gc.enable()


@pytest.mark.parametrize("native", [True, False])
def test_tasks_of_an_anyio_task_group_go_by_their_own_names(
    native: bool, lazy_loop_factory: LoopFactory
) -> None:
    """AnyIO drives each by a coroutine of its own; with eager tasks it makes them past `create_task`."""
    probe = make_task_probe(native=native)
    hook = TaskHook(probe)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(of_a_group)
            group.start_soon(asyncio.sleep, 0)

    hook.install()
    try:
        run(lazy_loop_factory, main())
    finally:
        hook.remove()
    finished = {row.function: row.finished for row in probe.read_rows() if row.created}
    assert finished[f"{__name__}.of_a_group"] == 3
    assert finished["asyncio.tasks.sleep"] == 1
    assert [function for function in finished if function.startswith("anyio")] == []
