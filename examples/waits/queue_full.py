"""The same with a queue that holds five orders: once it is full, each request waits for a place.

You will see: `asyncio.queue.size` stays at its `asyncio.queue.limit`, 5; of type `queue_put` there is
`asyncio.sync.wait.time`, as much as all requests took together.
"""

from __future__ import annotations

import asyncio

from opentelemetry.trace import SpanKind
from serving import run, serve, tracer

orders: asyncio.Queue[str] = asyncio.Queue(5)


async def work() -> None:
    while True:
        await orders.get()
        with tracer.start_as_current_span("order", kind=SpanKind.CONSUMER):
            await asyncio.sleep(0.1)


async def main() -> None:
    worker = asyncio.create_task(work())
    await serve(lambda: orders.put("order"), 20, every=0.05)
    worker.cancel()


run(main())
