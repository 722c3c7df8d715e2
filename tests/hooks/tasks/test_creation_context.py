"""In which context something of asyncio was created, asked when it is over."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from otel_concurrency.hooks.tasks.creation_context import creation_context
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
variable: ContextVar[str] = ContextVar("variable")


def value_in(thing: Any) -> str | None:
    context = creation_context(thing)
    return None if context is None else context.get(variable)


async def fails() -> None:
    variable.set("its own")
    raise KeyError


async def waits() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("task_class", [asyncio.Task, asyncio.tasks._PyTask])  # type: ignore[attr-defined]
def test_a_task_knows_it_whatever_became_of_it(task_class: Any, lazy_loop_factory: LoopFactory) -> None:
    async def main() -> list[str | None]:
        variable.set("creator's")
        loop = asyncio.get_running_loop()
        tasks = [task_class(coroutine, loop=loop) for coroutine in (fails(), waits())]
        variable.set("callback's")
        tasks[1].add_done_callback(lambda _: None)
        variable.set("later")
        await asyncio.wait(tasks, timeout=0.001)
        values = [value_in(task) for task in tasks]
        tasks[0].exception()
        tasks[1].cancel()
        await asyncio.wait(tasks)
        return [*values, value_in(tasks[1])]

    assert run(lazy_loop_factory, main()) == ["its own", "creator's", "creator's"]


def test_gather_knows_that_of_its_tasks(lazy_loop_factory: LoopFactory) -> None:
    async def main() -> str | None:
        variable.set("creator's")
        gathered = asyncio.gather(waits())
        variable.set("later")
        value = value_in(gathered)
        gathered.cancel()
        await asyncio.wait([gathered])
        return value

    assert run(lazy_loop_factory, main()) == "creator's"


def test_a_handle_of_asyncio_knows_it() -> None:
    async def main() -> list[str | None]:
        variable.set("creator's")
        loop = asyncio.get_running_loop()
        handles = [loop.call_soon(gc.isenabled), loop.call_later(60, gc.isenabled)]
        handles[1].cancel()
        variable.set("later")
        return [value_in(handle) for handle in handles]

    assert run(asyncio.new_event_loop, main()) == ["creator's", "creator's"]


class Strange:
    @property
    def get_context(self) -> object:
        raise RuntimeError


@pytest.mark.parametrize("thing", [None, object(), Strange(), [1]])
def test_others_know_none(thing: object) -> None:
    assert creation_context(thing) is None
