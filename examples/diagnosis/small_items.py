"""Ten thousand numbers go to other processes one by one: it takes longer to send them than to square them.

You will see: `granularity_imbalance`, "too small", of `__main__.square`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from running import run


def square(number: int) -> int:
    return number * number


async def main() -> None:
    loop = asyncio.get_running_loop()
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    ends = time.monotonic() + 4
    while time.monotonic() < ends:
        await asyncio.gather(*(loop.run_in_executor(pool, square, number) for number in range(2)))
    await asyncio.to_thread(pool.shutdown)


if __name__ == "__main__":
    run(main())
