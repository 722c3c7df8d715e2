"""A program in which everything fails that can, each in a trace of its own: run by test_failures.py.

    python failing.py asyncio|uvloop ROW...

Each row begins a span of its name. What it raises says the row's name, so a report is known by that, wherever
its trace leads.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from typing import Any

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
    await asyncio.sleep(0)
    raise FailingError(name)


def raises(name: str) -> None:
    raise FailingError(name)


@row
async def task_never_retrieved(name: str) -> None:
    """Collected later, in nobody's trace."""
    task = asyncio.create_task(fails(name), name="worker-7")
    await asyncio.wait([task])
    cycle = [task]
    cycle.append(cycle)  # type: ignore[arg-type]


@row
async def task_awaited(name: str) -> None:
    try:
        await asyncio.create_task(fails(name))
    except FailingError:
        pass


@row
async def task_gathered(name: str) -> None:
    try:
        await asyncio.gather(fails(name), fails(name))
    except FailingError:
        pass


@row
async def task_in_a_group(name: str) -> None:
    await asyncio.gather(fails(name), return_exceptions=True)


@row
async def task_cancelled(name: str) -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


@row
async def task_timed_out(name: str) -> None:
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.001)
    except asyncio.TimeoutError:
        pass


@row
async def task_destroyed_pending(name: str) -> None:
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    asyncio.create_task(waits(), name=name)  # noqa: RUF006
    await asyncio.sleep(0)


@row
async def future_never_retrieved(name: str) -> None:
    asyncio.get_running_loop().create_future().set_exception(FailingError(name))


@row
async def future_retrieved(name: str) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(FailingError(name))
    future.exception()


@row
async def gather_never_retrieved(name: str) -> None:
    """Its tasks are looked at by the future of `gather`, and that by nobody."""
    gathered = [asyncio.gather(fails(name), asyncio.sleep(0))]
    await asyncio.sleep(0.01)
    gathered.append(gathered)  # type: ignore[arg-type]


@row
async def executor_never_awaited(name: str) -> None:
    """The event loop's future is what nobody looks at."""
    future = [asyncio.get_running_loop().run_in_executor(None, raises, name)]
    await asyncio.wait(future)
    future.append(future)  # type: ignore[arg-type]


@row
async def executor_awaited(name: str) -> None:
    try:
        await asyncio.to_thread(raises, name)
    except FailingError:
        pass


@row
async def sent_from_a_thread(name: str) -> None:
    loop = asyncio.get_running_loop()

    def send() -> None:
        asyncio.run_coroutine_threadsafe(fails(name), loop)

    await asyncio.to_thread(send)
    await asyncio.sleep(0.01)


@row
async def sent_and_waited_for(name: str) -> None:
    loop = asyncio.get_running_loop()

    def send() -> None:
        try:
            asyncio.run_coroutine_threadsafe(fails(name), loop).result()
        except FailingError:
            pass

    await asyncio.to_thread(send)


@row
async def callback(name: str) -> None:
    asyncio.get_running_loop().call_soon(raises, name)


@row
async def done_callback(name: str) -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(lambda _: raises(name))
    await task


@row
async def callback_that_catches(name: str) -> None:
    def catches() -> None:
        try:
            raises(name)
        except FailingError:
            pass

    asyncio.get_running_loop().call_soon(catches)


@row
async def coroutine_never_awaited(name: str) -> None:
    fails.__qualname__ = name
    fails(name)  # type: ignore[unused-coroutine]
    fails.__qualname__ = "fails"


@row
async def coroutine_closed(name: str) -> None:
    fails(name).close()


@row
async def pool_future(name: str) -> None:
    def submit() -> None:
        with ThreadPoolExecutor(1, "files") as pool:
            pool.submit(raises, name)

    await asyncio.to_thread(submit)


@row
async def pool_future_looked_at(name: str) -> None:
    def submit() -> None:
        with ThreadPoolExecutor(1, "files") as pool:
            pool.submit(raises, name).exception()

    await asyncio.to_thread(submit)


@row
async def process_pool_future(name: str) -> None:
    await asyncio.to_thread(in_child, name)


def in_child(name: str) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(raises, name)


@row
async def thread_pool_result(name: str) -> None:
    def submit() -> None:
        with ThreadPool(1) as pool:
            pool.apply_async(raises, (name,))
            pool.close()
            pool.join()

    await asyncio.to_thread(submit)


@row
async def thread_pool_results_looked_at(name: str) -> None:
    def submit() -> None:
        with ThreadPool(1) as pool:
            looks: list[Callable[[], Any]] = [
                lambda: pool.apply(raises, (name,)),
                lambda: pool.apply_async(raises, (name,)).get(),
                lambda: pool.map(raises, (name,)),
                lambda: list(pool.imap(raises, (name,))),
                pool.apply_async(raises, (name,)).get,
            ]
            for look in looks:
                try:
                    look()
                except FailingError:
                    pass
            looks.clear()
            pool.apply_async(raises, (name,), error_callback=print).wait()

    await asyncio.to_thread(submit)


@row
async def mp_pool_result(name: str) -> None:
    def submit() -> None:
        with get_context("spawn").Pool(1) as pool:
            pool.map_async(raises, (name,))
            pool.close()
            pool.join()

    await asyncio.to_thread(submit)


@row
async def process(name: str) -> None:
    child = get_context("spawn").Process(target=raises, args=(name,), name="worker-9")
    await asyncio.to_thread(lambda: (child.start(), child.join()))


@row
async def forked_process(name: str) -> None:
    child = get_context("fork").Process(target=raises, args=(name,), name="worker-9")
    child.start()
    child.join()


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
    await asyncio.sleep(0.01)


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
async def context_detach(name: str) -> None:
    """A generator that stands in a span, and is closed in another context."""

    async def in_a_span() -> AsyncIterator[int]:
        with tracer.start_as_current_span("inner"):
            yield 1
            yield 2

    generator: Any = in_a_span()
    await generator.__anext__()
    await asyncio.create_task(generator.aclose())


@row
async def task_that_fails_at_the_end(name: str) -> None:
    """`asyncio.run` cancels it, and looks at what it comes to."""

    async def fails_when_cancelled() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise FailingError(name)

    kept.append(asyncio.create_task(fails_when_cancelled()))


@row
async def thread(name: str) -> None:
    thread = threading.Thread(target=raises, args=(name,), name="worker-8")
    thread.start()
    await asyncio.to_thread(thread.join)


@row
async def thread_that_catches(name: str) -> None:
    def catches() -> None:
        try:
            raises(name)
        except FailingError:
            pass

    thread = threading.Thread(target=catches)
    thread.start()
    await asyncio.to_thread(thread.join)


async def main(rows: list[str]) -> None:
    for name in rows:
        with tracer.start_as_current_span(name):
            await ROWS[name](name)
        await asyncio.sleep(0)
        with tracer.start_as_current_span("somebody else's"):
            gc.collect()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()


if __name__ == "__main__":
    kind, *rows = sys.argv[1:]
    if kind == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(main(rows))
