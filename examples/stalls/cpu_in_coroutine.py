"""A coroutine computes for long, in Python.

You will see: stalls with cause `cpu_python`, of `__main__.handle`; what it computes is in their stacks.
"""

from __future__ import annotations

import asyncio
import time

from opentelemetry import trace
from running import run

tracer = trace.get_tracer("example")


def compute(seconds: float) -> int:
    ends, turns = time.thread_time() + seconds, 0
    while time.thread_time() < ends:
        turns = sum(range(1000)) + turns
    return turns


async def handle() -> None:
    with tracer.start_as_current_span("request"):
        compute(0.3)


async def main() -> None:
    for _ in range(3):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.1)


run(main())
