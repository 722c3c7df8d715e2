"""Threads compute in Python while a coroutine does: each of them waits for the GIL most of the time.

You will see: stalls with cause `gil_contention`, of `__main__.handle`, for work that takes 0.09 s alone.
"""

from __future__ import annotations

import asyncio
import threading
import time

from opentelemetry import trace
from running import run

tracer = trace.get_tracer("example")
has_work, is_over = threading.Event(), threading.Event()


def count() -> None:
    while has_work.wait() and not is_over.is_set():
        sum(range(1_000))


async def handle() -> None:
    with tracer.start_as_current_span("request"):
        has_work.set()
        ends = time.thread_time() + 0.09
        while time.thread_time() < ends:
            sum(range(1_000))
        has_work.clear()


async def main() -> None:
    for _ in range(3):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.1)


threads = [threading.Thread(target=count) for _ in range(8)]
for thread in threads:
    thread.start()
run(main())
is_over.set()
has_work.set()
for thread in threads:
    thread.join()
