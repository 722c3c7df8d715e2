"""Snapshots of trio's tasks, which the hooks of trio find."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.instrumentors.event_loops import EventLoopInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.snapshot import Snapshot, take

trio = pytest.importorskip("trio")
pytest.importorskip("trio.testing")


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrumentors: list[Any] = [EventLoopInstrumentor(), AsyncioTaskInstrumentor()]
    for each in instrumentors:
        each.instrument(skip_dep_check=True)
    yield
    for each in reversed(instrumentors):
        each.uninstrument()


async def sleeping() -> None:
    await trio.sleep(60)


async def event_wait() -> None:
    await trio.Event().wait()


async def receiving() -> None:
    _, channel = trio.open_memory_channel(0)
    await channel.receive()


async def limited() -> None:
    await trio.Semaphore(0).acquire()


async def in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def accepting() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        await listener.accept()


async def crossed(first: Any, second: Any, arrived: Any) -> None:
    async with first:
        await arrived.wait()
        async with second:
            pass


def seen(*functions: Callable[[], Any], deadlock: bool = False) -> Snapshot:
    found: list[Snapshot] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)
            if deadlock:
                one, other, arrived = trio.Lock(), trio.Lock(), trio.Event()
                nursery.start_soon(crossed, one, other, arrived)
                nursery.start_soon(crossed, other, one, arrived)
                await trio.testing.wait_all_tasks_blocked()
                arrived.set()
            await trio.testing.wait_all_tasks_blocked(0.01)
            thread = threading.Thread(target=lambda: found.append(take()), name="otel-concurrency-test")
            thread.start()
            while thread.is_alive():
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return found[0]


def test_it_tells_for_what_a_task_waits() -> None:
    snapshot = seen(sleeping, event_wait, receiving, limited, in_a_nursery, accepting)
    kinds = {task.coroutine.rpartition(".")[2]: task.wait and task.wait.kind for task in snapshot.tasks}
    kinds.pop("main", None)
    assert kinds == {
        "sleeping": "sleep",
        "event_wait": "event",
        "receiving": "queue",
        "limited": "semaphore",
        "in_a_nursery": "taskgroup",
        "accepting": "stream_io",
        "sleep_forever": "sleep",
    }
    assert {task.loop_type for task in snapshot.tasks} == {"trio"}
    assert snapshot.troubles == ()


def test_a_cycle_of_locks_is_found() -> None:
    (deadlock,) = seen(deadlock=True).deadlocks
    assert deadlock.coroutines == (f"{__name__}.crossed",) * 2
