"""A thousand tasks each do next to nothing, and give way after every bit of it.

You will see: `loop_cpu_bound`, "tasks do too little at a time", of `__main__.add_up`.
"""

from __future__ import annotations

import asyncio
import time

from running import run


async def add_up(ends: float) -> int:
    total = 0
    while time.monotonic() < ends:
        total += 1
        await asyncio.sleep(0)
    return total


async def main() -> None:
    ends = time.monotonic() + 3
    await asyncio.gather(*(add_up(ends) for _ in range(1_000)))


run(main())
