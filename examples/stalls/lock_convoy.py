"""Many tasks queue up for one lock: requests are slow, and the event loop has nothing to do.

You will see: no stall. The waits of the tasks tell of it, not the loop.
"""

from __future__ import annotations

import asyncio

from running import run


async def handle(lock: asyncio.Lock) -> None:
    async with lock:
        await asyncio.sleep(0.02)


async def main() -> None:
    lock = asyncio.Lock()
    await asyncio.gather(*(handle(lock) for _ in range(50)))


run(main())
