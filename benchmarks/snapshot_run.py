"""One process of `benchmarks.snapshot`: many tasks, a loop under load, and snapshots from another thread.

A timer measures what the loop is held up: how much later than it was due it comes.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from otel_concurrency.instrumentors.event_loops import EventLoopInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.snapshot import Snapshot, take

LOADED_S = 0.0002
PAUSE_S = 0.0005
ALONE_S = 1.0


async def waiting_for_lock(lock: asyncio.Lock) -> None:
    async with lock:
        pass


async def waiting_for_event(event: asyncio.Event) -> None:
    await event.wait()


async def sleeping() -> None:
    await asyncio.sleep(3600)


async def nested(depth: int) -> None:
    await (nested(depth - 1) if depth else sleeping())


async def load(stop: asyncio.Event) -> None:
    """Work for a little, again and again, and make a task each time."""
    while not stop.is_set():
        until = time.perf_counter() + LOADED_S
        while time.perf_counter() < until:
            pass
        await asyncio.ensure_future(asyncio.sleep(PAUSE_S))


async def longest_delay(what: Callable[[], None]) -> float:
    """Return how late the loop was at worst while a thread did something, s."""
    thread = threading.Thread(target=what)
    longest = 0.0
    thread.start()
    while thread.is_alive():
        due = time.perf_counter() + PAUSE_S
        await asyncio.sleep(PAUSE_S)
        longest = max(longest, time.perf_counter() - due)
    return longest


def _take(found: list[Snapshot]) -> None:
    found.append(take())


async def measure(count: int, rounds: int) -> dict[str, Any]:
    """Return delays of the loop without and with a snapshot going on, and how long snapshots took."""
    lock, event, stop = asyncio.Lock(), asyncio.Event(), asyncio.Event()
    await lock.acquire()
    tasks: list[asyncio.Task[None]] = []
    for number in range(count):
        kinds = (waiting_for_lock(lock), waiting_for_event(event), sleeping(), nested(3))
        for each, coroutine in enumerate(kinds):
            if each == number % len(kinds):
                tasks.append(asyncio.ensure_future(coroutine))
            else:
                coroutine.close()
    await asyncio.sleep(0.1)
    during: list[float] = []
    took: list[float] = []
    told = left_out = 0
    load_task = asyncio.ensure_future(load(stop))
    alone = await longest_delay(lambda: time.sleep(ALONE_S))
    for _ in range(rounds):
        found: list[Snapshot] = []
        during.append(await longest_delay(functools.partial(_take, found)))
        took.append(found[0].took_s)
        told, left_out = len(found[0].tasks), found[0].left_out
    stop.set()
    await load_task
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"alone": alone, "during": during, "took": took, "told": told, "left_out": left_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop")
    parser.add_argument("count", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    EventLoopInstrumentor().instrument()
    AsyncioTaskInstrumentor().instrument()
    if arguments.loop == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    print(json.dumps(loop.run_until_complete(measure(arguments.count, arguments.rounds))))


if __name__ == "__main__":
    main()
