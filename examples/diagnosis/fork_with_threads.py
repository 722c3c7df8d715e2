"""A program with a thread of its own forks.

You will see: `fork_with_threads`, the thread is `refresher`, who forks `__main__.spawn_worker`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings

from running import run

warnings.simplefilter("ignore")  # CPython 3.12 and later say it, too


def spawn_worker() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


async def main() -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait, name="refresher")
    thread.start()
    await asyncio.sleep(0.5)
    spawn_worker()
    await asyncio.sleep(1)
    is_over.set()
    thread.join()


run(main())
