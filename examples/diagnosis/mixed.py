"""Two faults at once: a coroutine blocks the event loop, and an executor is too small.

You will see: `loop_blocked_io` first, of `__main__.handle`, then `executor_saturated`, of `reports`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from running import run


def render() -> None:
    time.sleep(0.1)


async def handle() -> None:
    await asyncio.sleep(0.5)
    time.sleep(0.3)  # noqa: ASYNC251


async def ask(pool: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await loop.run_in_executor(pool, render)


async def main() -> None:
    with ThreadPoolExecutor(2, thread_name_prefix="reports") as pool:
        asking = [asyncio.create_task(ask(pool)) for _ in range(12)]
        for _ in range(5):
            await asyncio.create_task(handle())
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


run(main())
