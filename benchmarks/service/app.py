"""The service that the macro benchmark loads: one endpoint, five gathered tasks, one call in a thread.

It knows nothing of how it is watched; `/flush` is there so that what the load caused is exported, and paid
for, before the second reading of the CPU clock.
"""

from __future__ import annotations

import asyncio
import logging
import os

from fastapi import FastAPI
from opentelemetry import _logs, metrics, trace

logger = logging.getLogger("service")
logger.setLevel(logging.INFO)
LOGS_EACH_REQUEST = os.environ.get("BENCHMARK_LOG") == "true"

app = FastAPI()


async def look_up(number: int) -> int:
    """Stand for a query that has to wait once."""
    await asyncio.sleep(0)
    return number


@app.get("/work/{item}")
async def work(item: int) -> dict[str, int]:
    """Gather five tasks, then add up their results in a thread."""
    numbers = await asyncio.gather(*(look_up(item + offset) for offset in range(5)))
    total = await asyncio.to_thread(sum, numbers)
    if LOGS_EACH_REQUEST:
        logger.info("added up %d", item)
    return {"total": total}


@app.get("/flush")
def flush() -> dict[str, bool]:
    """Export what is waiting, in a worker thread; without an SDK there is nothing to do."""
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    return {
        type(provider).__name__: provider.force_flush(30_000)
        for provider in providers
        if hasattr(provider, "force_flush")
    }
