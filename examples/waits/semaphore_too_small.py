"""A semaphore lets two requests through at a time, and ten come.

You will see: of type `semaphore` 8 `asyncio.sync.contentions` and 4 s of `asyncio.sync.wait.time`; on the
spans of those that waited `concurrency.wait.lock`, which is all of their time but 0.2 s.
"""

from __future__ import annotations

import asyncio

from serving import run, serve


async def main() -> None:
    semaphore = asyncio.Semaphore(2)

    async def handle() -> None:
        async with semaphore:
            await asyncio.sleep(0.2)

    await serve(handle, 10)


run(main())
