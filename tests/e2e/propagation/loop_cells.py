"""Items that run in a loop, or are sent to a thread by one."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
from looking import LoopItem, Observed, Seen, look, observe_on_loop


async def look_later() -> Seen:
    await asyncio.sleep(0)
    return look()


async def create_task() -> Seen:
    return await asyncio.create_task(look_later())


async def loop_create_task() -> Seen:
    return await asyncio.get_running_loop().create_task(look_later())


async def gather() -> Seen:
    return (await asyncio.gather(look_later(), look_later()))[1]


async def task_group() -> Seen:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
        task = group.create_task(look_later())
    seen: Seen = task.result()
    return seen


async def call_soon() -> Seen:
    loop = asyncio.get_running_loop()
    seen: asyncio.Future[Seen] = loop.create_future()
    loop.call_soon(lambda: seen.set_result(look()))
    return await seen


async def to_thread() -> Seen:
    return await asyncio.to_thread(look)


async def run_in_default_executor() -> Seen:
    return await asyncio.get_running_loop().run_in_executor(None, look)


async def anyio_worker_thread() -> Seen:
    return await anyio.to_thread.run_sync(look)


async def call_soon_threadsafe() -> Seen:
    """A thread that was started by the submitter calls back into the loop."""
    loop = asyncio.get_running_loop()
    seen: asyncio.Future[Seen] = loop.create_future()

    def call_back() -> None:
        loop.call_soon_threadsafe(lambda: seen.set_result(look()))

    thread = threading.Thread(target=call_back)
    thread.start()
    try:
        return await seen
    finally:
        thread.join()


async def on_loop(pool: ThreadPoolExecutor) -> dict[str, Observed]:
    """Observe all of them, one pool for those that take one."""
    loop = asyncio.get_running_loop()

    async def run_in_executor() -> Seen:
        return await loop.run_in_executor(pool, look)

    async def run_coroutine_threadsafe() -> Seen:
        """A work item of a pool asks the loop to run a coroutine."""

        def ask() -> Seen:
            return asyncio.run_coroutine_threadsafe(look_later(), loop).result(30)

        return await loop.run_in_executor(pool, ask)

    items: dict[str, LoopItem] = {
        "create_task": create_task,
        "loop.create_task": loop_create_task,
        "gather": gather,
        "call_soon": call_soon,
        "asyncio.to_thread": to_thread,
        "run_in_executor(None)": run_in_default_executor,
        "run_in_executor(pool)": run_in_executor,
        "AnyIO worker thread": anyio_worker_thread,
        "Thread, call_soon_threadsafe": call_soon_threadsafe,
        "pool, run_coroutine_threadsafe": run_coroutine_threadsafe,
    }
    if sys.version_info >= (3, 11):
        items["TaskGroup"] = task_group
    return {name: await observe_on_loop(item) for name, item in items.items()}


async def observed() -> dict[str, Observed]:
    with ThreadPoolExecutor(1) as pool:
        return await on_loop(pool)
