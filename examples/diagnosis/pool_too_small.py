"""Ten workers ask a database all the time, through a pool of two connections.

You will see: `pool_exhausted`, "the pool is too small".
"""

from __future__ import annotations

import asyncio

from running import run
from store import store


async def handle(client: object) -> None:
    while True:
        await client.get("price")  # type: ignore[attr-defined]
        await asyncio.sleep(0.001)


async def main() -> None:
    async with store(connections=2, answers_after_s=0.02) as client:
        handlers = [asyncio.create_task(handle(client)) for _ in range(10)]
        await asyncio.wait(handlers, timeout=4)
        for handler in handlers:
            handler.cancel()
        await asyncio.wait(handlers)


run(main())
