"""A task is cancelled, catches that, and goes on.

You will see: `cancel_ignored`, of `__main__.poll`.
"""

from __future__ import annotations

import asyncio

from running import run


async def poll() -> None:
    for _ in range(60):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            pass


async def main() -> None:
    task = asyncio.create_task(poll())
    await asyncio.sleep(0.2)
    task.cancel()
    await task


run(main())
