"""Two tasks take two locks, each in its own order; then both wait for ever.

You will see: a deadlock of `transfer` and `audit`, with both locks and where they were made; no loop metric
shows anything, and both tasks look as if they waited for a lock like any other.
"""

from __future__ import annotations

import asyncio

from looking import run


async def transfer(account: asyncio.Lock, ledger: asyncio.Lock) -> None:
    async with account:
        await asyncio.sleep(0.05)
        async with ledger:
            pass


async def audit(account: asyncio.Lock, ledger: asyncio.Lock) -> None:
    async with ledger:
        await asyncio.sleep(0.05)
        async with account:
            pass


async def main() -> None:
    account, ledger = asyncio.Lock(), asyncio.Lock()
    tasks = [
        asyncio.create_task(transfer(account, ledger), name="transfer"),
        asyncio.create_task(audit(account, ledger), name="audit"),
    ]
    await asyncio.gather(*tasks)


run(main())
