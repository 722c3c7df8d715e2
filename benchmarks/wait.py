"""Measures locks and queues in this process and prints one line of JSON: ns of each kind of `KINDS`.

Times are CPU time of the loop's thread, as in `benchmarks.measure`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable

from benchmarks import variants
from benchmarks.variants import LOOPS, new_loop

TURNS = 5_000
"""Of a lock or a queue that nobody else wants, in one reading."""

WAITING_TASKS = 50
"""Tasks that want the same lock; asyncio hands it on in order, so that each of them waits each time."""

TURNS_OF_EACH = 100


async def lock_ns() -> float:
    """Return the time of an `acquire` and a `release` of a free lock."""
    lock = asyncio.Lock()
    before = time.thread_time_ns()
    for _ in range(TURNS):
        await lock.acquire()
        lock.release()
    return (time.thread_time_ns() - before) / TURNS


async def queue_ns() -> float:
    """Return the time of a `put` and a `get` that both find what they need."""
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    before = time.thread_time_ns()
    for number in range(TURNS):
        await queue.put(number)
        await queue.get()
    return (time.thread_time_ns() - before) / TURNS


async def contended_ns() -> float:
    """Return the time of an `acquire` that waits, with the step in which it goes on, and a `release`."""
    lock = asyncio.Lock()

    async def take_turns() -> None:
        for _ in range(TURNS_OF_EACH):
            await lock.acquire()
            lock.release()

    await lock.acquire()
    tasks = [asyncio.ensure_future(take_turns()) for _ in range(WAITING_TASKS)]
    await asyncio.sleep(0)  # all of them wait
    before = time.thread_time_ns()
    lock.release()
    await asyncio.gather(*tasks)
    return (time.thread_time_ns() - before) / WAITING_TASKS / TURNS_OF_EACH


KINDS: dict[str, Callable[[], Awaitable[float]]] = {
    "lock": lock_ns,
    "contended": contended_ns,
    "queue": queue_ns,
}


def ours(native: bool, **settings: str) -> None:
    """Tasks, waits and queues, with these settings besides."""
    os.environ.update(settings)
    (variants.install_native if native else variants.install_pure)()

    from otel_concurrency.instrumentors.queues import QueueInstrumentor

    QueueInstrumentor().instrument()


VARIANTS: dict[str, Callable[[], None]] = {
    "bare": variants.install_nothing,
    "native": lambda: ours(True),
    "pure": lambda: ours(False),
    "native_names": lambda: ours(True, OTEL_PYTHON_CONCURRENCY_SYNC_WAITS="names"),
    "native_links": lambda: ours(True, OTEL_PYTHON_CONCURRENCY_QUEUE_LINKS="true"),
}


async def best(seconds: float) -> dict[str, float]:
    """Return of each kind the smallest of the readings that fit into a time; the kinds take turns."""
    readings: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for read in KINDS.values():
        await read()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(readings["queue"]) < 5:
        for kind, read in KINDS.items():
            readings[kind].append(await read())
    return {kind: min(found) for kind, found in readings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wait", description=__doc__)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to read (default %(default)s)")
    arguments = parser.parse_args()
    VARIANTS[arguments.variant]()
    print(json.dumps(new_loop(arguments.loop).run_until_complete(best(arguments.seconds))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
