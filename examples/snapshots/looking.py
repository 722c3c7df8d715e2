"""Runs an example on the event loop that the first argument names, and says what a snapshot of it shows.

Under `opentelemetry-instrument`, with `OTEL_PYTHON_CONCURRENCY_HTTP_PORT` set, `otel-concurrency tree` shows
the same from outside; `LOOK_AFTER` is after how many seconds it looks, and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any

from otel_concurrency.snapshot import Snapshot, take

LOOK_AFTER_S = float(os.environ.get("LOOK_AFTER", "0.5"))


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run until it was looked at; whether it ends by itself or not."""
    if sys.argv[1:] == ["uvloop"]:
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.run_until_complete(_until_seen(main))
    loop.close()


async def _until_seen(main: Coroutine[Any, Any, None]) -> None:
    running = asyncio.ensure_future(main)
    await asyncio.sleep(LOOK_AFTER_S)
    _tell(await asyncio.to_thread(take, with_threads=False))
    others = asyncio.all_tasks() - {asyncio.current_task()}
    while others:  # some do not end the first time that they are asked
        for each in others:
            each.cancel()
        _, others = await asyncio.wait(others, timeout=0.1)
    del running


def _tell(snapshot: Snapshot) -> None:
    for deadlock in snapshot.deadlocks:
        for name, coroutine in zip(deadlock.names, deadlock.coroutines, strict=True):
            print(f"in a deadlock: {name}, {coroutine}")
    for task in snapshot.tasks:
        if task.is_orphan:
            print(f"nobody can wake: {task.name}, {task.coroutine}, {task.wait.kind if task.wait else ''}")
        if task.cancel_requests:
            print(f"was asked to end: {task.name}, {task.coroutine}")
    waits = ", ".join(f"{count} {kind}" for kind, count in sorted(snapshot.waits.items()))
    print(f"waits: {waits}")
