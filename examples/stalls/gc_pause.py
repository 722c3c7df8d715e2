"""The garbage collector looks at some millions of objects, in the middle of a request.

You will see: stalls with cause `gc_pause`, of `__main__.handle`, and `cpython.gc.pause.duration`.
"""

from __future__ import annotations

import asyncio
import gc

from opentelemetry import trace
from running import run

tracer = trace.get_tracer("example")
heap: list[list[int]] = []


async def handle() -> None:
    with tracer.start_as_current_span("request"):
        for _ in range(3):
            gc.collect()


async def main() -> None:
    gc.disable()
    for _ in range(1_500):  # little by little: to make them is no stall, on a busy machine either
        heap.extend([number] for number in range(2_000))
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.1)


run(main())
