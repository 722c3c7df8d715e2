"""Snapshots of real programs, taken from another thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from otel_concurrency.snapshot import Snapshot, take
from otel_concurrency.snapshot.live_tasks import LiveTask
from tests.conftest import LoopFactory
from tests.loops import run


async def taken(**kwargs: Any) -> Snapshot:
    """Take a snapshot in a thread, while the loop goes on."""
    found: list[Snapshot] = []
    thread = threading.Thread(target=lambda: found.append(take(**kwargs)), name="otel-concurrency-test")
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    return found[0]


async def seen_waiting(*coroutines: Any) -> Snapshot:
    """Let these run until all of them wait, and take a snapshot; they end with it, and what they started."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    others = asyncio.all_tasks() - set(tasks)
    for number, task in enumerate(tasks):
        task.set_name(f"waiter {number}")
    try:
        for _ in range(30):
            await asyncio.sleep(0.001)
        return await taken()
    finally:
        while left := asyncio.all_tasks() - others:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


def named(snapshot: Snapshot, name: str) -> LiveTask:
    found = [task for task in snapshot.tasks if task.name == name]
    assert len(found) == 1, (snapshot, snapshot.troubles)
    return found[0]


async def lock_wait() -> None:
    lock = asyncio.Lock()
    async with lock, lock:
        pass


async def semaphore_wait() -> None:
    await asyncio.Semaphore(0).acquire()


async def condition_wait() -> None:
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def event_wait() -> None:
    await asyncio.Event().wait()


async def queue_get() -> None:
    await asyncio.Queue[int]().get()


async def queue_join() -> None:
    queue = asyncio.Queue[int]()
    queue.put_nowait(1)
    await queue.join()


async def queue_put() -> None:
    queue = asyncio.Queue[int](1)
    await queue.put(1)
    await queue.put(2)


async def sleeping() -> None:
    await asyncio.sleep(60)


async def gathering() -> None:
    await asyncio.gather(sleeping(), sleeping())


async def waiting() -> None:
    await asyncio.wait([asyncio.ensure_future(sleeping())])


async def as_completed() -> None:
    for each in asyncio.as_completed([sleeping(), sleeping()]):
        await each


async def for_a_task() -> None:
    await asyncio.ensure_future(sleeping())


async def shielded() -> None:
    await asyncio.shield(asyncio.ensure_future(sleeping()))


async def future() -> None:
    await asyncio.get_running_loop().create_future()


async def streaming() -> None:
    one, other = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=one)
    try:
        await reader.read(1)
    finally:
        writer.close()
        other.close()


async def nested_awaits() -> None:
    class Wrapped:
        def __await__(self) -> Any:
            return sleeping().__await__()

    async def generator() -> Any:
        await Wrapped()
        yield 1

    async for _ in generator():
        pass


KINDS: list[tuple[Callable[[], Awaitable[None]], str]] = [
    (lock_wait, "lock"),
    (semaphore_wait, "semaphore"),
    (condition_wait, "condition"),
    (event_wait, "event"),
    (queue_get, "queue"),
    (queue_put, "queue"),
    (queue_join, "queue"),
    (sleeping, "sleep"),
    (gathering, "gather"),
    (waiting, "wait"),
    (as_completed, "wait"),
    (for_a_task, "task"),
    (shielded, "task"),
    (future, "future"),
    (streaming, "stream_io"),
    (nested_awaits, "sleep"),
]


@pytest.mark.parametrize(("wait", "kind"), KINDS, ids=lambda each: getattr(each, "__name__", each))
def test_it_tells_for_what_a_task_waits(
    loop_factory: LoopFactory, wait: Callable[[], Any], kind: str
) -> None:
    async def main() -> None:
        task = named(await seen_waiting(wait()), "waiter 0")
        assert (task.state, task.wait and task.wait.kind) == ("waiting", kind)
        assert task.coroutine == f"{__name__}.{wait.__name__}"

    run(loop_factory, main())


@pytest.mark.parametrize(("wait", "kind"), [(sleeping, "sleep"), (event_wait, "event"), (future, "future")])
def test_a_timeout_is_told_beside_what_is_inside_of_it(
    loop_factory: LoopFactory, wait: Callable[[], Any], kind: str
) -> None:
    async def limited() -> None:
        await asyncio.wait_for(wait(), 60)

    async def main() -> None:
        found = named(await seen_waiting(limited()), "waiter 0").wait
        assert found is not None
        assert (found.kind, found.has_timeout) == (kind, True)

    run(loop_factory, main())


def test_a_thread_is_what_is_waited_for(loop_factory: LoopFactory) -> None:
    go_on = threading.Event()

    async def main() -> None:
        try:
            snapshot = await seen_waiting(asyncio.to_thread(go_on.wait))
        finally:
            go_on.set()
        wait = named(snapshot, "waiter 0").wait
        assert wait is not None
        assert wait.kind == "executor"

    run(loop_factory, main())


async def crossed(first: asyncio.Lock, second: asyncio.Lock, arrived: asyncio.Event) -> None:
    async with first:
        await arrived.wait()
        async with second:
            pass


def test_a_cycle_of_locks_is_found(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        one, other, arrived = asyncio.Lock(), asyncio.Lock(), asyncio.Event()
        tasks = [asyncio.ensure_future(crossed(*locks, arrived)) for locks in ((one, other), (other, one))]
        while not (one.locked() and other.locked()):
            await asyncio.sleep(0)
        arrived.set()
        snapshot = await seen_waiting(*tasks)
        (deadlock,) = snapshot.deadlocks
        assert sorted(deadlock.names) == ["waiter 0", "waiter 1"]
        assert deadlock.coroutines == (f"{__name__}.crossed",) * 2
        assert [edge.kind for edge in deadlock.edges] == ["lock", "lock"]
        assert {lock.holders for lock in snapshot.locks} == {(id(task),) for task in tasks}

    run(loop_factory, main())


def test_a_lock_that_its_holder_wants_again_is_a_cycle(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        (deadlock,) = (await seen_waiting(lock_wait())).deadlocks
        assert deadlock.names == ("waiter 0",)

    run(loop_factory, main())


def test_a_cycle_with_a_timeout_is_none(loop_factory: LoopFactory) -> None:
    async def limited(*locks: Any) -> None:
        await asyncio.wait_for(crossed(*locks), 60)

    async def main() -> None:
        one, other, arrived = asyncio.Lock(), asyncio.Lock(), asyncio.Event()
        tasks = [
            asyncio.ensure_future(crossed(one, other, arrived)),
            asyncio.ensure_future(limited(other, one, arrived)),
        ]
        while not (one.locked() and other.locked()):
            await asyncio.sleep(0)
        arrived.set()
        assert (await seen_waiting(*tasks)).deadlocks == ()

    run(loop_factory, main())


def test_a_future_that_nobody_else_has_makes_an_orphan(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        snapshot = await seen_waiting(future(), event_wait(), queue_get())
        assert {task.name for task in snapshot.orphans} == {"waiter 0", "waiter 1", "waiter 2"}

    run(loop_factory, main())


def test_a_future_that_somebody_has_makes_none(loop_factory: LoopFactory) -> None:
    async def held(it: Any) -> None:
        await it

    async def of_event(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timed, kept, event = loop.create_future(), [loop.create_future()], asyncio.Event()
        loop.call_later(60, timed.cancel)
        coroutines = [held(timed), held(kept[0]), of_event(event), sleeping(), streaming(), gathering()]
        del timed
        snapshot = await seen_waiting(*coroutines)
        assert snapshot.orphans == ()
        assert kept
        assert event

    run(loop_factory, main())


def test_edges_lead_from_who_waits_to_who_is_waited_for(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        snapshot = await seen_waiting(gathering(), for_a_task(), waiting(), shielded())
        ids = {task.name: task.id for task in snapshot.tasks}
        counts = [
            sum(edge.waiter == ids[f"waiter {number}"] for edge in snapshot.edges) for number in range(4)
        ]
        assert counts == [2, 1, 1, 1]
        assert snapshot.deadlocks == ()

    run(loop_factory, main())


def test_all_are_counted_and_some_are_told(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(sleeping()) for _ in range(500)]
        await asyncio.sleep(0)
        snapshot = await taken(max_tasks=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert snapshot.task_count >= 501  # other tests may have left some
        assert (len(snapshot.tasks), snapshot.left_out) == (10, snapshot.task_count - 10)
        assert snapshot.waits["sleep"] >= 500
        counts = {each.coroutine: each.count for each in snapshot.coroutines}
        assert counts[f"{__name__}.sleeping"] >= 500
        assert snapshot.troubles == ()

    run(loop_factory, main())


def test_a_snapshot_is_taken_while_the_loop_is_blocked() -> None:
    is_blocked, go_on = threading.Event(), threading.Event()
    found: list[Snapshot] = []

    def look() -> None:
        is_blocked.wait(30)
        found.append(take())
        go_on.set()

    async def blocking() -> None:
        is_blocked.set()
        go_on.wait(30)

    thread = threading.Thread(target=look, name="otel-concurrency-test")
    thread.start()
    asyncio.run(blocking())
    thread.join(30)
    (task,) = (task for task in found[0].tasks if task.coroutine.endswith("<locals>.blocking"))
    assert task.state == "running"
    assert [frame.function.split(".")[0] for frame in task.frames[:-1]] == ["threading", "threading"]
    assert task.frames[-1].function.endswith(".blocking")
    assert task.at is None
