"""A regular expression that backtracks without end: C code that keeps the GIL, so that no thread can go on.

You will see: stalls with cause `native_gil_held` and call `re.match`, of `__main__.handle`.
"""

from __future__ import annotations

import asyncio
import re

from opentelemetry import trace
from running import run

tracer = trace.get_tracer("example")


async def handle() -> None:
    with tracer.start_as_current_span("request"):
        for _ in range(3):
            re.match(r"(a+)+$", "a" * 23 + "b")


async def main() -> None:
    for _ in range(3):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.1)


run(main())
