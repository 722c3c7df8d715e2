"""A batch goes to four threads; one item takes thirty times as long as the others, and all wait for it.

You will see: `granularity_imbalance`, of `__main__.convert`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from running import run


def convert(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


async def main() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(4, thread_name_prefix="convert") as pool:
        for _ in range(2):
            items = [0.05] * 7 + [1.5]
            await asyncio.gather(*(loop.run_in_executor(pool, convert, item) for item in items))


run(main())
