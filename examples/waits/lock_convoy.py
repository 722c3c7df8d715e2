"""Requests queue up for one lock: they are slow, and the event loop has nothing to do.

You will see: of type `lock` 9 `asyncio.sync.contentions` and 9 s of `asyncio.sync.wait.time`; on each span
`concurrency.wait.lock`, which is all of its time but 0.2 s.
"""

from __future__ import annotations

import asyncio

from serving import run, serve


async def main() -> None:
    lock = asyncio.Lock()

    async def handle() -> None:
        async with lock:
            await asyncio.sleep(0.2)

    await serve(handle, 10)


run(main())
