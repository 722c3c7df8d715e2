"""Somebody takes a connection, fails, and never gives it back; twice, and the pool of two is empty.

You will see: `pool_exhausted`, "a leak".
"""

from __future__ import annotations

import asyncio

from running import run
from store import store

kept: list[object] = []


async def handle(client: object) -> None:
    connection = await client.connection_pool.get_connection()  # type: ignore[attr-defined]
    kept.append(connection)  # what a traceback would do that somebody keeps
    raise LookupError("no such thing")


async def ask(client: object) -> None:
    await client.get("price")  # type: ignore[attr-defined]


async def main() -> None:
    async with store(connections=2, answers_after_s=0.002) as client:
        await asyncio.gather(handle(client), handle(client), return_exceptions=True)
        waiting = [asyncio.create_task(ask(client)) for _ in range(4)]
        await asyncio.wait(waiting, timeout=4)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


run(main())
