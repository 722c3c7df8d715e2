"""Work in a pool waits for work that it has put into the same pool, in each of its workers.

You will see: `executor_saturated`, "is deadlocked", of `__main__.outer`.
"""

from __future__ import annotations

import asyncio
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

from running import run

pool = ThreadPoolExecutor(2, thread_name_prefix="nested")


def inner() -> int:
    return 1


def outer() -> int:
    try:
        return pool.submit(inner).result(timeout=4)
    except futures.TimeoutError:
        return 0


async def main() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.gather(*(loop.run_in_executor(pool, outer) for _ in range(2)))


run(main())
pool.shutdown()
