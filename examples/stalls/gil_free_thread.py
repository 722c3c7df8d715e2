"""A thread works hard in C code that lets go of the GIL: CPU time is spent, and the event loop does not mind.

You will see: no stall.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading

from running import run


def hash_much(is_over: threading.Event) -> None:
    data = b"x" * 10_000_000
    while not is_over.is_set():
        hashlib.sha256(data).hexdigest()


async def main() -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=hash_much, args=(is_over,))
    thread.start()
    for _ in range(100):
        sum(range(20_000))
        await asyncio.sleep(0.02)
    is_over.set()
    thread.join()


run(main())
