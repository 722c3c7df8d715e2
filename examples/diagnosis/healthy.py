"""Nothing is wrong: requests wait for connections that are there, for workers that are free, for short locks.

You will see: no finding.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from running import run
from store import store


async def handle(client: object, lock: asyncio.Lock, pool: ThreadPoolExecutor) -> None:
    await client.get("price")  # type: ignore[attr-defined]
    async with lock:
        await asyncio.sleep(0.001)
    await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0.01)
    sum(range(10_000))


async def main() -> None:
    lock = asyncio.Lock()
    ends = time.monotonic() + 4
    async with store(connections=10, answers_after_s=0.005) as client:
        with ThreadPoolExecutor(8, thread_name_prefix="files") as pool:
            while time.monotonic() < ends:
                await asyncio.gather(*(handle(client, lock, pool) for _ in range(4)))
                await asyncio.sleep(0.05)


run(main())
