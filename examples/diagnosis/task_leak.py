"""For each request a task is started that watches something for ever.

You will see: `task_leak`, of `__main__.watch`.
"""

from __future__ import annotations

import asyncio

from running import run

watchers: set[asyncio.Task[None]] = set()


async def watch() -> None:
    await asyncio.sleep(3_600)


async def handle() -> None:
    watchers.add(asyncio.create_task(watch()))
    await asyncio.sleep(0.001)


async def main() -> None:
    for _ in range(500):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.02)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.wait(watchers)


run(main())
