"""Two threads compute in Python, and the event loop has to wait for its turn each time.

You will see: `gil_contention`, of `__main__.crunch`.
"""

from __future__ import annotations

import asyncio
import threading

from running import run


def crunch(is_over: threading.Event) -> None:
    while not is_over.is_set():
        sum(range(1_000))


async def main() -> None:
    is_over = threading.Event()
    threads = [threading.Thread(target=crunch, args=(is_over,), name=f"crunch-{n}") for n in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        await asyncio.sleep(0.01)
    is_over.set()
    for thread in threads:
        thread.join()


run(main())
