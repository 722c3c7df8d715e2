"""A coroutine sleeps for 30 ms at a time, in the wrong way: too short for a stall, long enough to hurt.

You will see: `loop_blocked_io`, of `__main__.handle`.
"""

from __future__ import annotations

import asyncio
import time

from running import run


async def handle() -> None:
    time.sleep(0.03)  # noqa: ASYNC251


async def main() -> None:
    for _ in range(60):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.01)


run(main())
