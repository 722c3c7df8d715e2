"""The price of an iteration of an event loop, side by side: bare, and timed by us, native and pure.

The native one is also watched for stalls, as it is by default; what that takes of a core is told of a loop
that waits. An empty iteration calls one callback that calls itself; a saturated ping-pong, two protocols
on one loop that answer each other, finds one event in each. Every value comes from a process of its own;
variants take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.variants import LOOPS, is_installed, new_loop

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {"bare": "bare", "native": "ours, native", "pure": "ours, pure"}
KINDS = ("iteration", "ping-pong")
ADDED_BUDGET_US = 0.4
"""What an iteration may cost on asyncio, with the native timer."""

KEPT_BUDGET = {"asyncio": 0.95, "uvloop": 0.90}
"""The share of its throughput that a saturated ping-pong keeps, with the native timer."""

IDLE = "idle"
IDLE_BUDGET_PERCENT = 0.2
"""What watching an idle loop may take of a core."""

IDLE_S = 8.0
"""For how long an idle loop is looked at: a watching thread wakes about once a second."""

ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "268435456"}
"""glibc's, alike for all variants. asyncio allocates 256 KiB for each `recv`; whether from the heap (5 µs
a ball) or mapped and unmapped each time (18 µs) depends on what else was allocated, by us for instance. Left
to chance, that would be measured, and not the timer: once as a loss of 18 %, once as a gain of 250 %."""

ITERATIONS = {"iteration": 10_000, "ping-pong": 4_000}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Values per cell.
        seconds: How long one value is read.
    """

    rounds: int
    seconds: float


FULL = Effort(rounds=15, seconds=0.7)
QUICK = Effort(rounds=2, seconds=0.3)


async def iterate(count: int) -> None:
    """Let the loop go round so often, with one callback in each."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            done.set_result(None)

    again()
    await done


class Player(asyncio.Protocol):
    """Answers each byte with a byte, as long as the ball is in the game."""

    left = 0
    done: asyncio.Future[None]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        Player.left -= 1
        if Player.left > 0:
            self.transport.write(data)
        elif not Player.done.done():
            Player.done.set_result(None)


async def ping_pong() -> Callable[[int], Awaitable[None]]:
    """Connect two players; return what lets them play so many balls."""
    loop = asyncio.get_running_loop()
    pair = socket.socketpair()
    transports = []
    for each in pair:
        each.setblocking(False)
        transport, _ = await loop.create_connection(Player, sock=each)
        transports.append(transport)

    async def play(count: int) -> None:
        Player.left, Player.done = count, loop.create_future()
        transports[0].write(b"x")
        await Player.done

    return play


async def iteration_us(kind: str, seconds: float) -> float:
    """Return the CPU time of one iteration: the best reading, µs."""
    work = iterate if kind == "iteration" else await ping_pong()
    count = ITERATIONS[kind]
    await work(count)
    readings: list[int] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(readings) < 5:
        before = time.thread_time_ns()
        await work(count)
        readings.append(time.thread_time_ns() - before)
    return min(readings) / count / 1e3


async def idle_percent() -> float:
    """Return what this process takes of a core while its loop waits, %."""
    await asyncio.sleep(0.2)
    before, began = time.process_time(), time.monotonic()
    await asyncio.sleep(IDLE_S)
    return 100 * (time.process_time() - before) / (time.monotonic() - began)


def measure(variant: str, loop: str, kind: str, seconds: float) -> None:
    """Print one value; in a process of its own."""
    if variant != "bare":
        from otel_concurrency.instrumentors.event_loops import EventLoopInstrumentor

        EventLoopInstrumentor().instrument(native=variant == "native")
    if variant == "native":
        from otel_concurrency.instrumentors.stalls import StallInstrumentor

        StallInstrumentor().instrument(stall_threshold=0.1)
    work = idle_percent() if kind == IDLE else iteration_us(kind, seconds)
    print(json.dumps(new_loop(loop).run_until_complete(work)), flush=True)
    os._exit(0)


def measured(variant: str, loop: str, kind: str, seconds: float) -> float:
    """Measure one value in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.loops", "--measure", variant, loop, kind, str(seconds)]
    environ = {**os.environ, **ALLOCATOR}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: {variant} on {loop} could not be measured:\n{done.stderr.strip()}")
    return float(json.loads(done.stdout))


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    loops = [loop for loop in LOOPS if loop == "asyncio" or is_installed(loop)]
    cells = [(loop, kind, variant) for loop in loops for kind in KINDS for variant in VARIANTS]
    values: dict[tuple[str, str, str], list[float]] = {cell: [] for cell in cells}
    for number in range(effort.rounds):
        report.progress(f"loops: round {number + 1} of {effort.rounds}, {len(cells)} processes")
        for loop, kind, variant in cells:
            values[loop, kind, variant].append(measured(variant, loop, kind, effort.seconds))
    rows = []
    for (loop, kind, variant), found in values.items():
        bare, best = min(values[loop, kind, "bare"]), min(found)
        budget, mark = "", ""
        if variant == "native" and kind == "ping-pong":
            budget = f"≥ {KEPT_BUDGET[loop]:.0%}"
            mark = report.mark(-bare / best, -KEPT_BUDGET[loop])
        elif variant == "native" and loop == "asyncio":
            budget, mark = f"≤ {ADDED_BUDGET_US} µs", report.mark(best - bare, ADDED_BUDGET_US)
        rows.append(
            (
                loop,
                kind,
                VARIANTS[variant],
                f"{best:.2f}",
                f"{best - bare:+.2f}" if variant != "bare" else "",
                f"{bare / best:.1%}" if variant != "bare" else "",
                budget,
                mark,
            )
        )
    idle, idle_rows = idle_of(loops)
    text = "\n\n".join(
        (
            "## An iteration",
            f"{report.machine()} · {report.versions()} · best of {effort.rounds}, {report.load_average()}",
            report.table(
                ("loop", "kind", "variant", "µs", "added", "throughput kept", "budget", ""), rows, names=3
            ),
            f"A loop that waits, for {IDLE_S:.0f} s:",
            report.table(("loop", "variant", "of a core", "added", "budget", ""), idle_rows, names=2),
        )
    )
    return text, {" ".join(cell): found for cell, found in (values | idle).items()}


def idle_of(loops: list[str]) -> tuple[dict[tuple[str, str, str], list[float]], list[tuple[str, ...]]]:
    """Measure what a loop takes that waits; return the values and the rows of a table."""
    values: dict[tuple[str, str, str], list[float]] = {}
    rows: list[tuple[str, ...]] = []
    for loop in loops:
        report.progress(f"loops: {loop} that waits")
        bare, watched = (measured(variant, loop, IDLE, 0) for variant in ("bare", "native"))
        values |= {(loop, IDLE, "bare"): [bare], (loop, IDLE, "native"): [watched]}
        mark = report.mark(watched - bare, IDLE_BUDGET_PERCENT)
        rows += [
            (loop, VARIANTS["bare"], f"{bare:.3f} %", "", "", ""),
            (
                loop,
                VARIANTS["native"],
                f"{watched:.3f} %",
                f"{watched - bare:+.3f} %",
                f"≤ {IDLE_BUDGET_PERCENT} %",
                mark,
            ),
        ]
    return values, rows


def main() -> None:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--measure", nargs=4, metavar=("VARIANT", "LOOP", "KIND", "SECONDS"))
    arguments = parser.parse_args()
    if arguments.measure:
        variant, loop, kind, seconds = arguments.measure
        measure(variant, loop, kind, float(seconds))
    print(run(QUICK if arguments.quick else FULL)[0])


if __name__ == "__main__":
    main()
