"""Each request keeps its connection while it waits for something else: two connections serve two a second.

You will see: `pool_exhausted`, "held across an await of something else, by __main__.handle".
"""

from __future__ import annotations

import asyncio

from running import run
from store import store


async def ask_somebody_else() -> None:
    await asyncio.sleep(0.3)


async def handle(client: object) -> None:
    async with client.client() as connection:  # type: ignore[attr-defined]
        await connection.get("price")
        await ask_somebody_else()


async def keep_asking(client: object) -> None:
    while True:
        await asyncio.create_task(handle(client))


async def main() -> None:
    async with store(connections=2, answers_after_s=0.002) as client:
        handlers = [asyncio.create_task(keep_asking(client)) for _ in range(6)]
        await asyncio.wait(handlers, timeout=4)
        for handler in handlers:
            handler.cancel()
        await asyncio.wait(handlers)


run(main())
