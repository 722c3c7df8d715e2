"""Nothing is wrong: many short steps, waits that are awaited, and work in a thread.

You will see: no stall.
"""

from __future__ import annotations

import asyncio
import time

from running import run


async def handle() -> None:
    await asyncio.sleep(0.01)
    sum(range(20_000))
    await asyncio.to_thread(time.sleep, 0.2)


async def main() -> None:
    for _ in range(10):
        await asyncio.gather(*(handle() for _ in range(4)))


run(main())
