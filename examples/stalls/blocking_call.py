"""A coroutine calls something that waits, and the event loop waits with it.

You will see: stalls with cause `blocked_call` and call `time.sleep`, of `__main__.handle`; the log events and
the span event `asyncio.stall` are in the trace of the request that slept.
"""

from __future__ import annotations

import asyncio
import time

from opentelemetry import trace
from running import run

tracer = trace.get_tracer("example")


async def handle() -> None:
    with tracer.start_as_current_span("request"):
        time.sleep(0.3)  # noqa: ASYNC251


async def main() -> None:
    for _ in range(3):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.1)


run(main())
