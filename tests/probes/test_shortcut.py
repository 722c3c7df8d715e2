"""`create_task` without a frame of ours: the function stays what it was, and other calls go through it."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.tasks import TaskProbe

Function = Callable[..., Any]


async def one() -> int:
    return 1


def replacement(probe: TaskProbe) -> tuple[Function, Callable[[Any], None]]:
    """Make what stands in a loop class. Returns it, and what sets `create`."""
    create: Any = probe.create_task
    original: Any = asyncio.BaseEventLoop.create_task

    def create_task(self: Any, coro: Any, *, name: Any = None) -> Any:
        return create(original, self, coro) if name is None else create(original, self, coro, name=name)

    def set_create(value: Any) -> None:
        nonlocal create
        create = value

    return create_task, set_create


def created(probe: TaskProbe) -> int:
    return sum(row.created for row in probe.read_rows())


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> TaskProbe:
    return make_task_probe(native=request.param)


@pytest.fixture
def frames() -> Iterator[list[str]]:
    """The calls of Python functions named `create_task`, ours first."""
    seen: list[str] = []

    def profile(frame: types.FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "create_task":
            seen.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(profile)
    yield seen
    sys.setprofile(before)


def test_a_plain_call_has_no_frame_where_the_interpreter_allows_it(
    probe: TaskProbe, frames: list[str]
) -> None:
    function, _ = replacement(probe)
    short = probe.shorten(function)
    assert short == (probe.way != "pure" and sys.version_info < (3, 11))
    loop = asyncio.SelectorEventLoop()
    assert loop.run_until_complete(function(loop, one())) == 1
    assert (__file__ in frames) is not short
    frames.clear()
    assert loop.run_until_complete(function(loop, one(), name="named")) == 1
    assert __file__ in frames
    loop.close()
    assert created(probe) == 2


def test_it_stays_the_function_that_it_was(probe: TaskProbe) -> None:
    function, _ = replacement(probe)
    looks = (type(function), inspect.signature(function), function.__name__)  # type: ignore[attr-defined]
    probe.shorten(function)
    probe.shorten(function)  # a second time changes nothing
    assert (type(function), inspect.signature(function), function.__name__) == looks  # type: ignore[attr-defined]
    for wrong in ((), (None,), (None, None, None)):
        with pytest.raises(TypeError, match=r"create_task\(\)"):
            function(*wrong)


def test_silenced_or_taken_apart_it_calls_its_python_code(probe: TaskProbe) -> None:
    function, set_create = replacement(probe)
    probe.shorten(function)
    loop = asyncio.SelectorEventLoop()
    set_create(lambda original, loop, coroutine: original(loop, coroutine))
    assert loop.run_until_complete(function(loop, one())) == 1
    assert created(probe) == 0
    set_create("not callable")
    coroutine = one()
    with pytest.raises(TypeError, match="'str' object is not callable"):
        function(loop, coroutine)
    for cell in function.__closure__:  # type: ignore[attr-defined]
        del cell.cell_contents
    with pytest.raises(NameError):
        function(loop, coroutine)
    coroutine.close()
    loop.close()


@pytest.mark.parametrize("wrong", [None, len, lambda: None, type])
def test_what_has_another_closure_is_refused(probe: TaskProbe, wrong: Any) -> None:
    if probe.way == "pure":
        assert probe.shorten(wrong) is False
    else:
        with pytest.raises(TypeError, match="closure"):
            probe.shorten(wrong)
