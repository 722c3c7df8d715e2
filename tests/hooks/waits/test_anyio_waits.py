"""Waits for AnyIO's locks and streams: told by what they are for, on asyncio, uvloop and trio."""

from __future__ import annotations

import asyncio
import inspect
import socket
import sys
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio._backends import _asyncio as backend

from tests.hooks.waiting import Queue, Waiting, waiting

__all__ = ["waiting"]

Run = Callable[[Callable[[], Any]], Any]

wait_readable = getattr(anyio, "wait_readable", None) or anyio.wait_socket_readable  # before AnyIO 4.7

HAS_OWN_LOCKS = hasattr(backend, "Lock")  # AnyIO 4.5
FAST = [{}, {"fast_acquire": True}] if HAS_OWN_LOCKS else [{}]
OURS = [(getattr(backend, name), "acquire") for name in ("Lock", "Semaphore") if HAS_OWN_LOCKS]


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    on_uvloop = {"use_uvloop": True} if request.param == "uvloop" else {}
    name = "trio" if request.param == "trio" else "asyncio"
    return lambda main: anyio.run(main, backend=name, backend_options=on_uvloop)


async def one_after_the_other(lock: Any, holders: int) -> None:
    async def hold() -> None:
        async with lock:
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        for _ in range(holders):
            group.start_soon(hold)


async def both(*functions: Callable[[], Any]) -> None:
    """Run each until it waits, then the next one."""
    async with anyio.create_task_group() as group:
        for function in functions:
            group.start_soon(function)
            await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("options", FAST, ids=str)
def test_who_waits_for_a_lock_waits_for_all_before(
    waiting: Waiting, run: Run, options: dict[str, bool]
) -> None:
    """Ten hold it for 10 ms each: nine wait, 10 to 90 ms."""
    queue = Queue(anyio.Lock(**options), anyio.sleep)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(queue.hold, 9)

    run(main)
    queue.check(waiting.rows().pop("lock"))
    assert waiting.counts() == {"lock": 9}


def test_locks_and_limits_are_told_apart(waiting: Waiting, run: Run) -> None:
    async def main() -> None:
        await one_after_the_other(anyio.Lock(), 2)
        await one_after_the_other(anyio.Semaphore(2), 5)
        await one_after_the_other(anyio.Semaphore(1, **FAST[-1]), 2)
        await one_after_the_other(anyio.CapacityLimiter(1), 3)

    run(main)
    assert waiting.counts() == {"lock": 1, "semaphore": 3 + 1 + 2}


@pytest.mark.skipif(not HAS_OWN_LOCKS, reason="AnyIO 4.5 and later can make them outside of a run")
def test_what_was_made_outside_of_a_run_is_told_apart_too(waiting: Waiting, run: Run) -> None:
    made_early = anyio.Lock(), anyio.Semaphore(1), anyio.CapacityLimiter(1)
    event = anyio.Event()

    async def main() -> None:
        for each in made_early:
            await one_after_the_other(each, 2)

        async def sets() -> None:
            event.set()

        await both(event.wait, sets)

    run(main)
    assert waiting.counts() == {"lock": 1, "semaphore": 2, "event": 1}


def test_events_and_conditions_are_told_apart(waiting: Waiting, run: Run) -> None:
    async def main() -> None:
        event, condition = anyio.Event(), anyio.Condition()

        async def notified() -> None:
            async with condition:
                await condition.wait()

        async def notify() -> None:
            async with condition:
                condition.notify_all()

        async def sets() -> None:
            event.set()

        await both(event.wait, notified, notify, sets)

    run(main)
    assert waiting.counts() == {"event": 1, "condition": 1}


def test_streams_are_queues(waiting: Waiting, run: Run) -> None:
    async def main() -> None:
        send, receive = anyio.create_memory_object_stream[int]()

        async def puts() -> None:
            await send.send(1)

        async def takes() -> None:
            assert await receive.receive() == 1

        with send, receive:
            await both(takes, takes, puts, puts)
            assert waiting.counts() == {"queue_get": 2}
            await both(puts, puts, puts, takes, takes, takes)

    run(main)
    assert waiting.counts() == {"queue_get": 2, "queue_put": 3}


def test_nobody_waits_for_what_is_free(waiting: Waiting, run: Run) -> None:
    async def main() -> None:
        lock, semaphore, limiter = anyio.Lock(), anyio.Semaphore(2), anyio.CapacityLimiter(1)
        event = anyio.Event()
        event.set()
        send, receive = anyio.create_memory_object_stream[int](1)
        with send, receive:
            for number in range(20):
                async with lock, semaphore, limiter:
                    await send.send(number)
                    assert await receive.receive() == number
                    await event.wait()

    run(main)
    assert waiting.rows() == {}


def test_those_that_are_cancelled_have_waited(waiting: Waiting, run: Run) -> None:
    async def main() -> None:
        lock = anyio.Lock()
        async with lock, anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(lock.acquire)
            while lock.statistics().tasks_waiting < 2:
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        await lock.acquire()

    run(main)
    assert waiting.counts() == {"lock": 2}
    assert (waiting.rows()["lock"].durations.min_ns or 0) >= 0.009e9


def test_a_wait_for_a_thread_is_none_for_a_lock(waiting: Waiting, run: Run) -> None:
    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)

        async def work() -> None:
            await anyio.to_thread.run_sync(lambda: None, limiter=limiter)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)

    run(main)
    assert waiting.rows() == {}


def test_a_socket_that_waits_for_its_peer_waits_for_no_event(waiting: Waiting, run: Run) -> None:
    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

        async def echo(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                await anyio.sleep(0.01)
                await stream.send(await stream.receive())

        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"x")
                assert await stream.receive() == b"x"
            group.cancel_scope.cancel()

    run(main)
    assert waiting.rows() == {}


def test_who_waits_for_a_task_or_a_process_waits_for_no_event(waiting: Waiting, run: Run) -> None:
    """Nor who waits for a socket to be ready."""

    async def main() -> None:
        await anyio.run_process([sys.executable, "-S", "-c", ""])
        here, there = socket.socketpair()
        with here, there:
            async with anyio.create_task_group() as group:
                group.start_soon(wait_readable, here)
                await anyio.wait_all_tasks_blocked()
                there.send(b"x")
                task = group.start_soon(anyio.sleep, 0.001)
                if task is not None:  # AnyIO 4.14
                    await task

    run(main)
    assert waiting.rows() == {}


def test_it_looks_as_before_and_is_put_back() -> None:
    originals = [vars(owner)[name] for owner, name in OURS]
    waiting = Waiting(native=False)
    waiting.install()
    waiting.install()
    ours = [vars(owner)[name] for owner, name in OURS]
    assert [one is other for one, other in zip(ours, originals, strict=True)] == [False] * len(OURS)
    for one, other in zip(ours, originals, strict=True):
        assert inspect.signature(one) == inspect.signature(other)
        assert inspect.iscoroutinefunction(one)
        assert (one.__qualname__, one.__module__, one.__code__) == (
            other.__qualname__,
            other.__module__,
            other.__code__,
        )
    waiting.remove()
    assert [vars(owner)[name] for owner, name in OURS] == originals


@pytest.mark.skipif(not HAS_OWN_LOCKS, reason="AnyIO 4.5 and later have locks of their own on asyncio")
def test_what_is_changed_in_asyncio_later_is_seen(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is one name of the module; all others are what they are."""
    made: list[object] = []
    future = asyncio.Future

    def noticed() -> asyncio.Future[Any]:
        made.append(future())
        return made[-1]  # type: ignore[return-value]

    async def main() -> None:
        lock = anyio.Lock()
        monkeypatch.setattr(asyncio, "Future", noticed)
        await one_after_the_other(lock, 3)
        monkeypatch.undo()

    anyio.run(main)
    assert len(made) == 2
    assert waiting.counts() == {"lock": 2}


def test_removed_it_counts_nothing_also_for_who_still_holds_ours(waiting: Waiting) -> None:
    async def main() -> None:
        lock = anyio.Lock()
        acquire = lock.acquire
        waiting.remove()
        async with lock:
            with anyio.move_on_after(0.001):
                await both(acquire, acquire)

    anyio.run(main)
    assert waiting.rows() == {}
