"""Tasks fail, and nobody looks at them.

You will see: `errors_swallowed`, a `LookupError` of `__main__.refresh`.
"""

from __future__ import annotations

import asyncio
import logging

from running import run

logging.disable()  # asyncio would write about it


async def refresh() -> None:
    raise LookupError("no such price")


async def main() -> None:
    for _ in range(15):
        asyncio.create_task(refresh())  # noqa: RUF006
        await asyncio.sleep(0.1)


run(main())
