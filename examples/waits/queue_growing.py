"""Orders are put into a queue twice as fast as they are taken out: no request waits, and the queue grows.

You will see: `asyncio.queue.size` grows by 10 a second, and ends at 20; no `asyncio.queue.limit`.
"""

from __future__ import annotations

import asyncio

from opentelemetry.trace import SpanKind
from serving import run, serve, tracer

orders: asyncio.Queue[str] = asyncio.Queue()


async def work() -> None:
    while True:
        await orders.get()
        with tracer.start_as_current_span("order", kind=SpanKind.CONSUMER):
            await asyncio.sleep(0.1)


async def main() -> None:
    worker = asyncio.create_task(work())
    await serve(lambda: orders.put("order"), 40, every=0.05)
    worker.cancel()


run(main())
