"""Two tasks take the same two locks, each in its own order.

You will see: `deadlock`, of `payer` and `payee`.
"""

from __future__ import annotations

import asyncio

from running import run


async def transfer(one: asyncio.Lock, other: asyncio.Lock) -> None:
    async with one:
        await asyncio.sleep(0.05)
        async with other:
            pass


async def main() -> None:
    one, other = asyncio.Lock(), asyncio.Lock()
    tasks = [
        asyncio.create_task(transfer(one, other), name="payer"),
        asyncio.create_task(transfer(other, one), name="payee"),
    ]
    await asyncio.wait(tasks, timeout=4)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


run(main())
