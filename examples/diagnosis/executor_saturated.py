"""Requests call something slow in threads, of which there are two.

You will see: `executor_saturated`, of the executor `reports` and `__main__.render`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from running import run


def render() -> None:
    time.sleep(0.1)


async def handle(pool: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await loop.run_in_executor(pool, render)


async def main() -> None:
    with ThreadPoolExecutor(2, thread_name_prefix="reports") as pool:
        handlers = [asyncio.create_task(handle(pool)) for _ in range(8)]
        await asyncio.wait(handlers, timeout=4)
        for handler in handlers:
            handler.cancel()
        await asyncio.wait(handlers)


run(main())
