"""A coroutine waits by asking again and again: the event loop turns as fast as it can.

You will see: a stall with cause `spin`, of `__main__.wait_for_it`; nobody waits for long all the while.
"""

from __future__ import annotations

import asyncio
import time

from running import run


async def wait_for_it(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def main() -> None:
    await asyncio.create_task(wait_for_it(5))
    await asyncio.sleep(1)


run(main())
