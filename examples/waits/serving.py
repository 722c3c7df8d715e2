"""Serves requests, each in a task and a server's span of its own, on the loop that the command line names."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind

tracer = trace.get_tracer("example")


async def serve(handle: Callable[[], Awaitable[None]], requests: int, every: float = 0.0) -> None:
    """Handle so many requests; one comes every so many seconds."""

    async def request() -> None:
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            await handle()

    tasks = []
    for number in range(requests):
        if number and every:
            await asyncio.sleep(every)
        tasks.append(asyncio.create_task(request()))
    await asyncio.gather(*tasks)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end on `asyncio`, the default, or `uvloop`: both have a `run`."""
    import_module(sys.argv[1] if sys.argv[1:] else "asyncio").run(main)
