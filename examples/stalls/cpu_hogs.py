"""Other processes take the CPUs: the event loop is ready to go on, and has to wait for its turn.

You will see: stalls with cause `cpu_starved`; the function named is the one that waited, it is not to blame.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

from opentelemetry import trace
from running import run

tracer = trace.get_tracer("example")


async def handle() -> None:
    with tracer.start_as_current_span("request"):
        ends = time.thread_time() + 0.04
        while time.thread_time() < ends:
            sum(range(1_000))


async def main() -> None:
    await asyncio.sleep(0.3)
    for _ in range(3):
        await asyncio.create_task(handle())
        await asyncio.sleep(0.1)


hog = [sys.executable, "-S", "-c", "while True: pass"]
hogs = [subprocess.Popen(hog) for _ in range(3 * (os.cpu_count() or 1))]
os.nice(5)
try:
    run(main())
finally:
    for each in hogs:
        each.kill()
        each.wait()
