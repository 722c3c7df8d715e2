"""Nothing of ours stays behind: blocks, references and table places are given back."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import selectors
import sys
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from otel_concurrency.hooks.loops.event_loops import EventLoopHook
from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import loop_timer_type, make_task_probe
from otel_concurrency.probes.loop_time import LoopTimes
from otel_concurrency.probes.tasks import TaskProbe

ROUNDS = 200
"""A leak of one block a round would show as this many; caches that fill up once show as a handful."""

origin: contextvars.ContextVar[object] = contextvars.ContextVar("origin")


async def passes() -> None:
    await asyncio.sleep(0)


async def fails() -> None:
    await asyncio.sleep(0)
    raise ValueError


async def waits() -> None:
    await asyncio.get_running_loop().create_future()


async def finished(probe: TaskProbe) -> None:
    await asyncio.gather(*(passes() for _ in range(5)))


async def failed(probe: TaskProbe) -> None:
    await asyncio.gather(*(fails() for _ in range(5)), return_exceptions=True)


async def cancelled(probe: TaskProbe) -> None:
    tasks = [asyncio.create_task(waits()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def never_started(probe: TaskProbe) -> None:
    task = asyncio.create_task(passes())
    task.cancel()
    del task
    await asyncio.sleep(0)


async def destroyed(probe: TaskProbe) -> None:
    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    del task
    gc.collect()


async def in_a_cycle(probe: TaskProbe) -> None:
    """The task, its coroutine and its context all lead to each other."""
    held: list[object] = []

    async def holds_itself() -> None:
        held.append(asyncio.current_task())
        origin.set(held)
        await asyncio.get_running_loop().create_future()

    held.append(asyncio.create_task(holds_itself()))
    await asyncio.sleep(0)
    held = []
    gc.collect()


async def meddled_with(probe: TaskProbe) -> None:
    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    coroutine: Any = task.get_coro()
    for meddle in (
        lambda: coroutine.throw(ValueError("x")),
        lambda: coroutine.send(None),
        lambda: coroutine.throw(),
        coroutine.close,
        lambda: coroutine.no_such_attribute,
        lambda: weakref.ref(coroutine),
        lambda: (repr(coroutine), hash(coroutine), coroutine == coroutine, dir(coroutine)),
    ):
        try:
            meddle()
        except (ValueError, TypeError, RuntimeError, AttributeError):
            pass
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def refused(probe: TaskProbe) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    coroutine = passes()
    with pytest.raises(RuntimeError):
        loop.create_task(coroutine)  # noqa: RUF006
    coroutine.close()


async def eager(probe: TaskProbe) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    await asyncio.gather(passes(), fails(), return_exceptions=True)
    loop.set_task_factory(None)


async def in_a_shared_context(probe: TaskProbe) -> None:
    if sys.version_info >= (3, 11):
        shared = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.create_task(passes(), context=shared) for _ in range(3)))


async def with_exemplars(probe: TaskProbe) -> None:
    origin.set({"a": object()})
    await asyncio.gather(*(passes() for _ in range(5)))


async def read(probe: TaskProbe) -> None:
    await asyncio.gather(passes(), fails(), return_exceptions=True)
    probe.read_rows()
    probe.read_loops()
    getattr(probe, "running", list)()


async def with_accounts(probe: TaskProbe) -> None:
    outer, inner, forgotten = (probe.new_account() for _ in range(3))
    outer.begin()
    await passes()
    inner.begin(outer)
    await asyncio.gather(*(passes() for _ in range(3)))
    outer.end()
    await passes()
    inner.end()

    async def forgets() -> None:
        forgotten.begin()
        await passes()

    await asyncio.create_task(forgets())


async def from_a_thread(probe: TaskProbe) -> None:
    thread = threading.Thread(target=asyncio.run, args=(passes(),))
    thread.start()
    thread.join()


STORIES: list[Callable[[TaskProbe], Any]] = [
    finished, failed, cancelled, never_started, destroyed, in_a_cycle, meddled_with, refused, eager,
    in_a_shared_context, with_exemplars, read, with_accounts, from_a_thread,
]  # fmt: skip


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_no_block_is_left(native: bool, story: Callable[[TaskProbe], Any]) -> None:
    async def play(rounds: int) -> int:
        for _ in range(rounds):
            await story(probe)
        await asyncio.sleep(0)
        probe.read_rows()
        gc.collect()
        return sys.getallocatedblocks()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    probe = make_task_probe(native=native, origin=origin)
    hook = TaskHook(probe)
    hook.install()
    gc.disable()
    try:
        # Through `call`, so that the driving task's own context stays as it was.
        def call(rounds: int) -> int:
            return contextvars.Context().run(loop.run_until_complete, play(rounds))

        # What is collected at the end of the first rounds fills the interpreter's free lists.
        call(ROUNDS)
        readings = [call(ROUNDS) for _ in range(5)]
    finally:
        gc.enable()
        hook.remove()
        loop.close()
    # A leak shows each time; what the interpreter keeps once for itself shows once.
    assert min(after - before for before, after in pairwise(readings)) < ROUNDS // 4


@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_a_probe_goes_with_its_last_task(native: bool) -> None:
    probe = make_task_probe(native=native, origin=origin)
    hook = TaskHook(probe)
    hook.install()
    asyncio.run(passes())
    hook.remove()
    inner = weakref.ref(probe)
    del probe, hook
    gc.collect()
    assert inner() is None


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("selector_type", ["DefaultSelector", "SelectSelector"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_no_block_is_left_of_a_run(native: bool, selector_type: str) -> None:
    def meddle() -> None:
        own = vars(selector).get("_selector")
        kept.append(
            (own, repr(own), dir(own), getattr(own, "poll", None), getattr(own, "no_such_attribute", None))
        )
        loop.stop()

    def play(rounds: int) -> int:
        for _ in range(rounds):
            loop.call_soon(meddle)
            loop.run_forever()
            kept.clear()
        gc.collect()
        return sys.getallocatedblocks()

    kept: list[object] = []
    selector = getattr(selectors, selector_type)()
    loop = asyncio.SelectorEventLoop(selector)
    hook = EventLoopHook(LoopTimes(loop_timer_type(native=native)))
    hook.install()
    gc.disable()
    try:
        play(ROUNDS)
        readings = [play(ROUNDS) for _ in range(5)]
    finally:
        gc.enable()
        hook.remove()
        loop.close()
    assert min(after - before for before, after in pairwise(readings)) < ROUNDS // 4
