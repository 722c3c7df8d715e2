"""Nothing is wrong: consumers wait for items, as consumers do, and tasks come and go.

You will see: no finding.
"""

from __future__ import annotations

import asyncio
import contextlib

from running import run


async def consume(queue: asyncio.Queue[int]) -> None:
    while True:
        await queue.get()
        await asyncio.sleep(0.002)


async def watch(event: asyncio.Event) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), 0.05)


async def main() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    event = asyncio.Event()
    consumers = [asyncio.create_task(consume(queue)) for _ in range(20)]
    for number in range(300):
        queue.put_nowait(number)
        watcher = asyncio.create_task(watch(event))
        await asyncio.sleep(0.01)
        if number % 10 == 0:
            watcher.cancel()
    await asyncio.sleep(0.2)
    for consumer in consumers:
        consumer.cancel()
    await asyncio.wait(consumers)


run(main())
