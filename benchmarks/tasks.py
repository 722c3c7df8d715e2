"""The price of a task and of a step, side by side: bare, ours native, ours pure, upstream's instrumentor.

Every value comes from a process of its own, and the variants take turns (A B C D A B C D …), so that whatever
else the machine does meets all of them. Compare the columns of one run; the figures of another day differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.variants import LOOPS, VARIANTS, is_installed

ROOT = Path(__file__).resolve().parent.parent

BARE = "bare"
MEMORY_VARIANTS = ("native", "pure")
LIVE_TASKS = 1_000_000
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc's, alike for all variants that keep tasks alive: what is large is mapped, and unmapped when it is let
go of. Left to itself, glibc may keep the last table that asyncio's set of all tasks has grown out of: that is
15 bytes a task."""

LIVE_BUDGET_BYTES = 160.0
"""What a live task of ours may cost on top of a bare one."""

FLAT_TASKS = 10_000_000
FLAT_TASKS_QUICK = 1_000_000
FLAT_BUDGET_BYTES = 1_000_000.0
"""Growth that still counts as flat: a tenth of a byte per task, far below anything kept per task."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Values per cell.
        seconds: How long one value is read.
        flat_tasks: Short tasks of the memory test.
    """

    rounds: int
    seconds: float
    flat_tasks: int


FULL = Effort(rounds=7, seconds=0.7, flat_tasks=FLAT_TASKS)
QUICK = Effort(rounds=2, seconds=0.3, flat_tasks=FLAT_TASKS_QUICK)


@dataclass(frozen=True, slots=True)
class Timing:
    """One row of the report, in the unit of its kind: µs per task or ns per step.

    Attributes:
        loop: `asyncio` or `uvloop`.
        kind: `task` or `step`.
        variant: Key of `VARIANTS`.
        values: One per round.
        bare: The best bare value of the same run.
        budget: What the variant may add to it, or `None`.
    """

    loop: str
    kind: str
    variant: str
    values: tuple[float, ...]
    bare: float
    budget: float | None

    @property
    def added(self) -> float:
        return min(self.values) - self.bare


def added_budget(variant: str, kind: str) -> float | None:
    """Return what a variant may add to a bare task (µs) or step (ns) on this interpreter, or `None`."""
    if variant == "native":
        proxied = sys.version_info < (3, 14)
        return {"task": 0.35 if proxied else 0.8, "step": 60.0 if proxied else 120.0}[kind]
    if variant == "pure" and kind == "task":
        return 3.0
    return None


def measured(variant: str, loop: str, kind: str, *options: str, **environ: str) -> dict[str, float]:
    """Measure one value in a fresh process, with these variables set besides.

    Raises:
        SystemExit: That process failed; what it wrote is in the message.
    """
    command = [sys.executable, "-m", "benchmarks.measure", variant, loop, kind, *options]
    variables = {**os.environ, **environ}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: {variant} on {loop} could not be measured:\n{done.stderr.strip()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def timings(effort: Effort) -> list[Timing]:
    """Measure every variant on every loop that is installed, in turn, round by round."""
    loops = [loop for loop in LOOPS if loop == "asyncio" or is_installed(loop)]
    variants = [key for key, variant in VARIANTS.items() if variant.is_available()]
    cells = [(loop, kind, variant) for loop in loops for kind in ("task", "step") for variant in variants]
    values: dict[tuple[str, str, str], list[float]] = {cell: [] for cell in cells}
    for number in range(effort.rounds):
        report.progress(f"tasks: round {number + 1} of {effort.rounds}, {len(cells)} processes")
        for cell in cells:
            loop, kind, variant = cell
            values[cell].append(measured(variant, loop, kind, "--seconds", str(effort.seconds))["value"])
    return [
        Timing(
            loop,
            kind,
            variant,
            tuple(values[loop, kind, variant]),
            min(values[loop, kind, BARE]),
            added_budget(variant, kind),
        )
        for loop, kind, variant in cells
    ]


def timing_table(rows: Sequence[Timing], kind: str) -> str:
    """Lay out the rows of one kind."""
    unit, digits = ("µs per task", 2) if kind == "task" else ("ns per step", 0)
    return report.table(
        ("loop", "variant", unit, "median", "added", "of bare", "budget", ""),
        [
            (
                row.loop,
                VARIANTS[row.variant].label,
                f"{min(row.values):.{digits}f}",
                f"{statistics.median(row.values):.{digits}f}",
                f"{row.added:+.{digits}f}" if row.variant != BARE else "",
                f"{min(row.values) / row.bare:.2f} x",
                f"{row.budget:+.{digits}f}" if row.budget is not None else "",
                report.mark(row.added, row.budget),
            )
            for row in rows
            if row.kind == kind
        ],
        names=2,
    )


def memory(effort: Effort) -> dict[str, Any]:
    """Measure what live tasks cost and whether short ones leave anything, each in a process of its own."""
    variants = [key for key in MEMORY_VARIANTS if VARIANTS[key].is_available()]
    report.progress(f"tasks: memory of {LIVE_TASKS:,} live and {effort.flat_tasks:,} short tasks")
    live = {
        key: measured(key, "asyncio", "live", "--count", str(LIVE_TASKS), **ALLOCATOR)["value"]
        for key in (BARE, *variants)
    }
    flat = {
        key: measured(key, "asyncio", "flat", "--count", str(effort.flat_tasks)) for key in (BARE, *variants)
    }
    return {"flat_tasks": effort.flat_tasks, "flat": flat, "live": live}


def memory_table(found: dict[str, Any]) -> str:
    """Lay out both memory tests."""
    rows: list[tuple[str, ...]] = []
    bare = found["live"][BARE]
    for key, value in found["live"].items():
        added = value - bare
        budget = LIVE_BUDGET_BYTES if key in MEMORY_VARIANTS else None
        rows.append(
            (
                VARIANTS[key].label,
                f"{value:.0f} B",
                f"{added:+.0f} B" if key != BARE else "",
                report.mark(added, budget),
                f"{found['flat'][key]['before'] / 1e6:.1f} MB",
                f"{found['flat'][key]['after'] / 1e6:.1f} MB",
                report.mark(
                    found["flat"][key]["after"] - found["flat"][key]["before"],
                    FLAT_BUDGET_BYTES if budget else None,
                ),
            )
        )
    return report.table(
        (
            "variant",
            "per live task",
            "added",
            f"≤ {LIVE_BUDGET_BYTES:.0f} B",
            "RSS before",
            f"after {found['flat_tasks']:,} tasks",
            "flat",
        ),
        rows,
    )


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    rows = timings(effort)
    found = memory(effort)
    loads = report.load_average()
    text = "\n\n".join(
        (
            "## Tasks and steps",
            f"{report.machine()} · {report.versions()} · {effort.rounds} rounds, best of each, {loads}",
            timing_table(rows, "task"),
            timing_table(rows, "step"),
            memory_table(found),
        )
    )
    data = {
        "timings": [
            {
                "loop": row.loop,
                "kind": row.kind,
                "variant": row.variant,
                "values": row.values,
                "added": row.added,
                "budget": row.budget,
            }
            for row in rows
        ],
        "memory": found,
    }
    return text, data


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds, 1 million tasks for memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every value to this file")
    arguments = parser.parse_args()
    text, data = run(QUICK if arguments.quick else FULL)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
