"""Each request computes for 70 ms in one step: none of them is a stall, and nobody else has a turn.

You will see: `loop_cpu_bound`, "a step is too long", of `__main__.handle`.
"""

from __future__ import annotations

import asyncio
import time

from running import run


async def handle() -> None:
    ends = time.thread_time() + 0.07
    while time.thread_time() < ends:
        sum(range(1_000))


async def main() -> None:
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        await asyncio.create_task(handle())
        await asyncio.sleep(0.005)


run(main())
