"""Measures one value in this process and prints it as one line of JSON.

A process per value keeps variants apart: nothing that one of them patched, imported or allocated is there
for the next. Times are CPU time of the loop's thread, so that a busy neighbour delays a measurement but does
not count in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable

from benchmarks.variants import LOOPS, VARIANTS, new_loop

TASKS_PER_BATCH = 100
"""As many as a busy service has under way; large enough to make the batch's own cost vanish."""

TASKS_PER_READING = 5_000
STEPS_TASKS = 50
"""Tasks that step in turn while steps are measured."""

STEPS_LONG = 201
STEPS_SHORT = 1
WARM_UP_TASKS = 100_000


async def empty() -> None:
    """The shortest task there is."""


async def stepping(steps: int) -> None:
    """A task of this many steps and nothing else."""
    for _ in range(steps - 1):
        await asyncio.sleep(0)


async def run_tasks(count: int) -> None:
    """Create and await this many empty tasks, in gathered batches."""
    for _ in range(count // TASKS_PER_BATCH):
        # `asyncio.create_task` and not the loop's: upstream's instrumentor sees only the former.
        await asyncio.gather(*[asyncio.create_task(empty()) for _ in range(TASKS_PER_BATCH)])


async def run_steps(steps: int) -> None:
    """Run a few tasks of this many steps side by side."""
    await asyncio.gather(*[asyncio.create_task(stepping(steps)) for _ in range(STEPS_TASKS)])


async def cpu_ns(work: Callable[[int], Awaitable[None]], argument: int) -> int:
    """Return the thread's CPU time for one piece of work, ns."""
    before = time.thread_time_ns()
    await work(argument)
    return time.thread_time_ns() - before


async def task_us(seconds: float) -> dict[str, float]:
    """Return the CPU time of an empty task, created and awaited: the best reading, µs."""
    await run_tasks(TASKS_PER_READING)
    readings: list[int] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(readings) < 5:
        readings.append(await cpu_ns(run_tasks, TASKS_PER_READING))
    return {"value": min(readings) / TASKS_PER_READING / 1e3}


async def step_ns(seconds: float) -> dict[str, float]:
    """Return the CPU time of one more step: long tasks less short ones, the best reading of each, ns."""
    await run_steps(STEPS_LONG)
    long: list[int] = []
    short: list[int] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(long) < 5:
        long.append(await cpu_ns(run_steps, STEPS_LONG))
        short.append(await cpu_ns(run_steps, STEPS_SHORT))
    return {"value": (min(long) - min(short)) / STEPS_TASKS / (STEPS_LONG - STEPS_SHORT)}


async def flat_bytes(count: int) -> dict[str, float]:
    """Return resident memory before and after many short tasks, in bytes."""
    await run_tasks(WARM_UP_TASKS)
    before = resident_bytes()
    await run_tasks(count)
    return {"before": before, "after": resident_bytes()}


async def live_bytes(count: int) -> dict[str, float]:
    """Return the resident memory of one live task, in bytes: suspended on a future, started, never done."""
    await run_tasks(WARM_UP_TASKS)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_at_gate() -> None:
        await gate

    before = resident_bytes()
    tasks: list[asyncio.Task[None]] = []
    while len(tasks) < count:
        # Started soon after they are made, as in a service: a million handles at once would be counted too.
        tasks.extend(asyncio.create_task(wait_at_gate()) for _ in range(TASKS_PER_BATCH))
        await asyncio.sleep(0)
    return {"value": (resident_bytes() - before) / len(tasks)}


def resident_bytes() -> int:
    """Return this process's resident memory. Source: `/proc/self/statm` on Linux, else psutil."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import psutil

        return int(psutil.Process().memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=__doc__)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("kind", choices=["task", "step", "flat", "live"])
    parser.add_argument(
        "--seconds", type=float, default=0.7, help="how long to read times (default %(default)s)"
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="tasks for `flat` and `live`")
    arguments = parser.parse_args()

    VARIANTS[arguments.variant].install()
    measurements: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
        "task": lambda: task_us(arguments.seconds),
        "step": lambda: step_ns(arguments.seconds),
        "flat": lambda: flat_bytes(arguments.count),
        "live": lambda: live_bytes(arguments.count),
    }

    async def measure() -> None:
        print(json.dumps(await measurements[arguments.kind]()), flush=True)

    new_loop(arguments.loop).run_until_complete(measure())
    # A million live tasks need not be taken apart one by one, and nothing here has an end worth waiting for.
    os._exit(0)


if __name__ == "__main__":
    main()
