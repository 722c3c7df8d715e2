"""Ten tasks need one lock all the time.

You will see: `lock_contention`, of the lock, which `__main__.handle` has.
"""

from __future__ import annotations

import asyncio

from running import run


async def handle(lock: asyncio.Lock) -> None:
    while True:
        async with lock:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)


async def main() -> None:
    lock = asyncio.Lock()
    tasks = [asyncio.create_task(handle(lock)) for _ in range(10)]
    await asyncio.wait(tasks, timeout=4)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


run(main())
