"""A program with trouble, for the browser tests: a stall, a failed task, a lock, a pool, logs."""

from __future__ import annotations

import asyncio
import logging
import time

from opentelemetry import trace

log = logging.getLogger("kitchen")
tracer = trace.get_tracer("kitchen")


async def sharpen_knife() -> None:
    log.warning("the knife is blunt")
    time.sleep(0.6)  # the trouble that is to be seen


async def burn_toast() -> None:
    await asyncio.sleep(0)
    raise RuntimeError("burnt <script>document.title='broken in'</script>")


async def use_stove(lock: asyncio.Lock) -> None:
    async with lock:
        await asyncio.sleep(0.05)


async def main() -> None:
    lock = asyncio.Lock()
    for number in range(3):
        with tracer.start_as_current_span("cook dinner", kind=trace.SpanKind.SERVER):
            await asyncio.gather(*(asyncio.create_task(use_stove(lock)) for _ in range(3)))
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)
            if number == 1:
                await asyncio.create_task(sharpen_knife())
                toast = asyncio.create_task(burn_toast())
                await asyncio.wait([toast])
                del toast
        await asyncio.sleep(0.3)


if __name__ == "__main__":
    asyncio.run(main())
