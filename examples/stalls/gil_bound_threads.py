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


class Rush:
    """Threads that compute from `begin` to `end`."""

    def __init__(self) -> None:
        self._has_begun, self._is_over = threading.Event(), threading.Event()
        self._computing: list[int] = []
        self._threads = [threading.Thread(target=self._compute) for _ in range(8)]
        for thread in self._threads:
            thread.start()

    def begin(self) -> None:
        self._has_begun.set()
        while len(self._computing) < len(self._threads):  # a busy machine may let them begin late
            sum(range(1_000))

    def end(self) -> None:
        self._is_over.set()

    def _compute(self) -> None:
        self._has_begun.wait()
        self._computing.append(threading.get_ident())
        while not self._is_over.is_set():
            sum(range(1_000))


async def handle(rush: Rush) -> None:
    with tracer.start_as_current_span("request"):
        rush.begin()
        ends = time.thread_time() + 0.09
        while time.thread_time() < ends:
            sum(range(1_000))
        rush.end()


async def main(rushes: list[Rush]) -> None:
    for rush in rushes:
        await asyncio.create_task(handle(rush))
        await asyncio.sleep(0.1)


run(main([Rush() for _ in range(3)]))
