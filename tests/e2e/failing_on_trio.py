"""failing.py's like for trio: run by test_trio_failures.py.

    python failing_on_trio.py trio|anyio ROW...

The last row may be one that ends the program.
"""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import trio
import trio.testing
from opentelemetry import trace

ROWS: dict[str, Callable[[str], Awaitable[None]]] = {}
kept: list[object] = []
tracer = trace.get_tracer("failing")


class FailingError(Exception):
    pass


def row(function: Callable[[str], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
    ROWS[function.__name__] = function
    return function


async def fails(name: str) -> None:
    await trio.lowlevel.checkpoint()
    raise FailingError(name)


def raises(name: str) -> None:
    raise FailingError(name)


async def fails_in_a_span(name: str) -> None:
    with tracer.start_as_current_span(f"{name}, inner"):
        await fails(name)


async def waits_in_a_span(name: str) -> None:
    with tracer.start_as_current_span(f"{name}, inner"):
        await trio.sleep_forever()


def raises_in_a_pool(name: str) -> None:
    with ThreadPoolExecutor(1, "files") as pool:
        pool.submit(raises, name)


def raises_in_a_pool_of_processes(name: str) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(raises, name)


def looks_at_what_raises_in_a_pool(name: str) -> None:
    with ThreadPoolExecutor(1, "files") as pool:
        pool.submit(raises, name).exception()


def catches(function: Callable[..., Any], *args: Any) -> None:
    try:
        function(*args)
    except FailingError:
        pass


@row
async def thread(name: str) -> None:
    thread = threading.Thread(target=raises, args=(name,), name="worker-8")
    thread.start()
    await trio.to_thread.run_sync(thread.join)


@row
async def run_in_a_thread(name: str) -> None:
    thread = threading.Thread(target=trio.run, args=(fails, name))
    thread.start()
    await trio.to_thread.run_sync(thread.join)


@row
async def thread_that_catches(name: str) -> None:
    thread = threading.Thread(target=catches, args=(raises, name))
    thread.start()
    await trio.to_thread.run_sync(thread.join)


@row
async def pool_future(name: str) -> None:
    await trio.to_thread.run_sync(raises_in_a_pool, name)


@row
async def pool_future_looked_at(name: str) -> None:
    await trio.to_thread.run_sync(looks_at_what_raises_in_a_pool, name)


@row
async def process_pool_future(name: str) -> None:
    await trio.to_thread.run_sync(raises_in_a_pool_of_processes, name)


@row
async def process(name: str) -> None:
    child = get_context("spawn").Process(target=raises, args=(name,))
    await trio.to_thread.run_sync(lambda: (child.start(), child.join()))


@row
async def to_thread_awaited(name: str) -> None:
    for run_sync in (trio.to_thread.run_sync, anyio.to_thread.run_sync):
        try:
            await run_sync(raises, name)
        except FailingError:
            pass


@row
async def from_thread_caught(name: str) -> None:
    for library in (trio, anyio):
        await library.to_thread.run_sync(catches, library.from_thread.run, fails, name)
        await library.to_thread.run_sync(catches, library.from_thread.run_sync, raises, name)


@row
async def coroutine_never_awaited(name: str) -> None:
    fails.__qualname__ = name
    fails(name)  # type: ignore[unused-coroutine]
    fails.__qualname__ = "fails"


@row
async def coroutine_closed(name: str) -> None:
    fails(name).close()


class Fails:
    def __init__(self, name: str) -> None:
        self.name = name

    def __del__(self) -> None:
        raise FailingError(self.name)


@row
async def unraisable(name: str) -> None:
    Fails(name)


async def numbers(name: str) -> AsyncIterator[int]:
    try:
        yield 1
        yield 2
    finally:
        raise FailingError(name)


@row
async def asyncgen_left(name: str) -> None:
    async for _ in numbers(name):
        break
    await trio.testing.wait_all_tasks_blocked()


@row
async def asyncgen_closed(name: str) -> None:
    generator: Any = numbers(name)
    await generator.__anext__()
    try:
        await generator.aclose()
    except FailingError:
        pass


@row
async def asyncgen_collected(name: str) -> None:
    """By a collection in somebody else's trace: whose it was, nobody knows."""
    generator: list[Any] = [numbers(name)]
    await generator[0].__anext__()
    generator.append(generator)


@row
async def asyncgen_at_the_end(name: str) -> None:
    """The end of the run closes it."""
    generator: Any = numbers(name)
    await generator.__anext__()
    kept.append(generator)


@row
async def nursery_caught(name: str) -> None:
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, name)
            nursery.start_soon(waits_in_a_span, name)
            await trio.sleep_forever()
    except Exception:  # the group
        pass


@row
async def task_group_caught(name: str) -> None:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fails_in_a_span, name)
            group.start_soon(fails, name)
    except Exception:
        pass


@row
async def start_caught(name: str) -> None:
    async def never_started(task_status: object) -> None:
        await fails(name)

    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(never_started)
        except FailingError:
            pass


@row
async def cancelled(name: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_in_a_span, name)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@row
async def moved_on(name: str) -> None:
    with trio.move_on_after(0.001):
        await waits_in_a_span(name)


@row
async def too_slow_caught(name: str) -> None:
    try:
        with anyio.fail_after(0.001):
            await waits_in_a_span(name)
    except TimeoutError:
        pass


@row
async def shielded_and_cancelled(name: str) -> None:
    """What a cancellation cannot stop goes on to its end."""
    with trio.CancelScope() as scope:
        scope.cancel()
        with trio.CancelScope(shield=True), tracer.start_as_current_span(f"{name}, inner"):
            await trio.lowlevel.checkpoint()


@row
async def ends_in_main(name: str) -> None:
    await fails(name)


@row
async def ends_in_a_child(name: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, name)
        await trio.sleep_forever()


@row
async def ends_in_a_task_group(name: str) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(fails, name)


@row
async def ends_in_a_span_of_a_child(name: str) -> None:
    """Others leave spans of their own after that, and one with an exception that it handles."""

    async def cleans_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            try:
                with tracer.start_as_current_span("cleaning up"):
                    raise KeyError
            except KeyError:
                pass

    async with trio.open_nursery() as nursery, trio.open_nursery() as inner:
        nursery.start_soon(waits_in_a_span, "another")
        nursery.start_soon(cleans_up)
        await trio.testing.wait_all_tasks_blocked()
        inner.start_soon(fails_in_a_span, name)


@row
async def ends_in_a_nursery_of_all(name: str) -> None:
    """The nursery is not the row's: it ends when the row's span is over."""
    nursery: Any = trio.lowlevel.current_task().parent_nursery
    nursery.start_soon(fails, name)


@row
async def ends_too_slow(name: str) -> None:
    with trio.fail_after(0.001):
        await trio.sleep_forever()


@row
async def ends_in_a_system_task(name: str) -> None:
    trio.lowlevel.spawn_system_task(fails, name, context=contextvars.copy_context())
    await trio.sleep_forever()


@row
async def ends_in_a_callback(name: str) -> None:
    trio.lowlevel.current_trio_token().run_sync_soon(raises, name)
    await trio.sleep_forever()


async def each(rows: list[str]) -> None:
    for name in rows:
        with tracer.start_as_current_span(name):
            await ROWS[name](name)
        await trio.lowlevel.checkpoint()
        with tracer.start_as_current_span("somebody else's"):
            gc.collect()
    await trio.testing.wait_all_tasks_blocked()


async def main(rows: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(each, rows)


if __name__ == "__main__":
    kind, *rows = sys.argv[1:]
    if kind == "trio":
        trio.run(main, rows)
    else:
        anyio.run(main, rows, backend="trio")
