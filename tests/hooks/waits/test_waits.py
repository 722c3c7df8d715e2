"""Waits for asyncio's locks and queues: counted where somebody had to wait, as long as they took."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import time
from asyncio import mixins
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.hooks.waits.creations import CreationHook
from otel_concurrency.hooks.waits.waits import WaitHook
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.tasks import TaskProbe
from otel_concurrency.probes.waits import MAX_NAMES, WaitNames, WaitRow, row_of, split

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Scenario = Callable[[], Any]


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> Iterator[TaskProbe]:
    probe = make_task_probe(native=request.param)
    if request.param and probe.way == "pure":
        pytest.skip("no native probes here")
    hooks = (TaskHook(probe), WaitHook(probe))
    for hook in hooks:
        hook.install()
    yield probe
    for hook in reversed(hooks):
        hook.remove()


def waits(probe: TaskProbe) -> dict[str, WaitRow]:
    return {row.kind: row for row in probe.read_waits() if row.contentions}


def run(loop_factory: LoopFactory, scenario: Scenario) -> Any:
    loop = loop_factory()
    try:
        return loop.run_until_complete(scenario())
    finally:
        loop.close()


async def one_after_the_other(lock: Any, holders: int) -> list[int]:
    """Let so many hold it for 10 ms each; returns what each waited for it, in ns."""
    waited_ns = []

    async def hold() -> None:
        asked_ns = time.monotonic_ns()
        async with lock:
            waited_ns.append(time.monotonic_ns() - asked_ns)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(hold() for _ in range(holders)))
    return waited_ns


def test_who_waits_for_a_lock_waits_for_all_before(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    _, *waited_ns = run(loop_factory, lambda: one_after_the_other(asyncio.Lock(), 10))
    row = waits(probe).pop("lock")
    assert (row.contentions, row.waiting, row.durations.count) == (9, 0, 9)
    assert 0.9 * sum(waited_ns) <= row.wait_ns == row.durations.sum_ns <= sum(waited_ns)
    assert 0 < row.durations.min_ns <= min(waited_ns)
    assert 0.9 * max(waited_ns) <= row.durations.max_ns <= max(waited_ns)


def test_each_kind_is_told_apart(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def scenario() -> None:
        await one_after_the_other(asyncio.Semaphore(2), 5)
        await one_after_the_other(asyncio.BoundedSemaphore(1), 2)
        event, condition = asyncio.Event(), asyncio.Condition()

        async def notified() -> None:
            async with condition:
                await condition.wait()

        waiting = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(notified())]
        await asyncio.sleep(0)
        event.set()
        async with condition:
            condition.notify_all()
        await asyncio.gather(*waiting)
        queue: asyncio.Queue[int] = asyncio.LifoQueue(1)

        async def take() -> None:
            assert [await queue.get() for _ in range(3)] == [0, 1, 2]

        taker = asyncio.ensure_future(take())
        await asyncio.sleep(0)
        for number in range(3):
            await queue.put(number)
        await taker

    run(loop_factory, scenario)
    assert {kind: row.contentions for kind, row in waits(probe).items()} == {
        "semaphore": 4,
        "event": 1,
        "condition": 1,
        "queue_get": 3,
        "queue_put": 2,
    }
    assert all(row.waiting == 0 for row in waits(probe).values())


def test_nobody_waits_for_what_is_free(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def scenario() -> None:
        lock, semaphore, queue = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Queue[int]()
        event = asyncio.Event()
        event.set()
        for number in range(100):
            async with lock, semaphore:
                await queue.put(number)
                assert await queue.get() == number
                await event.wait()

    run(loop_factory, scenario)
    assert waits(probe) == {}


def test_those_that_wait_now_and_those_that_are_cancelled(
    probe: TaskProbe, loop_factory: LoopFactory
) -> None:
    async def scenario() -> None:
        event = asyncio.Event()
        waiting = [asyncio.ensure_future(event.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        all_wait_ns = time.monotonic_ns()
        assert waits(probe)["event"][1:5] == (None, 3, 3, 0)
        await asyncio.sleep(0.01)
        waited_ns = time.monotonic_ns() - all_wait_ns
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        row = waits(probe)["event"]
        assert (row.contentions, row.waiting, row.durations.count) == (3, 2, 1)
        assert row.wait_ns >= waited_ns
        event.set()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(loop_factory, scenario)
    row = waits(probe)["event"]
    assert (row.contentions, row.waiting, row.durations.count) == (3, 0, 3)


def test_what_dies_while_it_waits_waits_no_more(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    loop = loop_factory()
    loop.set_exception_handler(lambda loop, context: None)  # "destroyed but pending"
    event = asyncio.Event()
    task = loop.create_task(event.wait())
    loop.run_until_complete(asyncio.sleep(0))
    assert waits(probe)["event"].waiting == 1
    loop.close()
    del task, event
    gc.collect()
    assert waits(probe)["event"].waiting == 0


def test_reset_forgets_all(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def scenario() -> None:
        event = asyncio.Event()
        task = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)
        probe.reset()
        assert waits(probe) == {}
        event.set()
        await task

    run(loop_factory, scenario)
    assert probe.read_waits() == []


def test_others_that_ask_for_the_loop_get_it(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    class Own(asyncio.Lock):
        def loop(self) -> asyncio.AbstractEventLoop:
            return self._get_loop()  # type: ignore[attr-defined, no-any-return]

    async def scenario() -> None:
        assert Own().loop() is asyncio.get_running_loop()

    run(loop_factory, scenario)
    assert waits(probe) == {}


def test_it_looks_as_before_and_is_put_back() -> None:
    original = vars(mixins._LoopBoundMixin)["_get_loop"]
    hook = WaitHook(make_task_probe(native=False))
    hook.install()
    hook.install()
    ours = vars(mixins._LoopBoundMixin)["_get_loop"]
    assert ours is not original
    assert inspect.signature(ours) == inspect.signature(original)
    hook.remove()
    assert vars(mixins._LoopBoundMixin)["_get_loop"] is original


def test_the_callback_of_the_twin_keeps_no_context() -> None:
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
    probe = make_task_probe(native=False)
    loop = asyncio.new_event_loop()
    value = object()
    before = sys.getrefcount(value)
    future = loop.create_future()

    def follow() -> None:
        variable.set(value)
        probe.wait_for(future, 0)

    contextvars.copy_context().run(follow)
    assert sys.getrefcount(value) == before
    future.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert probe.read_waits()[0].waiting == 0


@pytest.mark.skipif(not hasattr(asyncio, "Barrier"), reason="barriers came with CPython 3.11")
def test_a_barrier_is_no_condition(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def scenario() -> None:
        barrier = asyncio.Barrier(3)
        await asyncio.gather(*(barrier.wait() for _ in range(3)))

    run(loop_factory, scenario)
    assert {kind: row.contentions for kind, row in waits(probe).items()} == {"barrier": 2}


@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_with_names_each_place_counts_by_itself(native: bool, loop_factory: LoopFactory) -> None:
    probe = make_task_probe(native=native)
    creations = CreationHook(asyncio.Lock, asyncio.Queue)
    hooks = (TaskHook(probe), creations, WaitHook(probe, creations.site))
    for hook in hooks:
        hook.install()
    places: dict[str, int] = {}

    async def scenario() -> None:
        first, second = asyncio.Lock(), asyncio.Lock()
        places["both"] = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
        third = asyncio.Lock()
        await one_after_the_other(first, 2)
        await one_after_the_other(second, 3)
        await one_after_the_other(third, 2)

    try:
        run(loop_factory, scenario)
        seen = {(row.kind, row.name): (row.contentions, row.waiting) for row in probe.read_waits()}
    finally:
        for hook in reversed(hooks):
            hook.remove()
    line = places["both"]
    assert seen == {("lock", f"{__name__}:{line}"): (3, 0), ("lock", f"{__name__}:{line + 2}"): (1, 0)}


def test_names_beyond_the_limit_are_others() -> None:
    names = WaitNames()
    numbers = [names.number(f"app:{line}") for line in range(MAX_NAMES + 3)]
    assert numbers == [*range(2, MAX_NAMES + 2), 1, 1, 1]
    assert (names.name(0), names.name(1), names.name(2)) == (None, "_other", "app:0")
    assert split(row_of(5, numbers[-4])) == (5, MAX_NAMES + 1)
