"""A worker catches every exception, its cancellation too, and goes on; a shutdown waits for it.

You will see: of `worker` that it was asked to end and goes on (CPython 3.11 and later keep that).
"""

from __future__ import annotations

import asyncio

from looking import run


async def worker() -> None:
    for _ in range(20):
        try:
            await asyncio.sleep(0.2)
        except BaseException:
            pass  # "it must never stop"


async def main() -> None:
    task = asyncio.create_task(worker(), name="worker")
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])


run(main())
