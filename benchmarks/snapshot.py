"""What a snapshot costs the program it looks at: for how long its loop is held up, and how long one takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks import report
from benchmarks.environments import ROOT
from benchmarks.variants import LOOPS, is_installed

BUDGET_MS = {10_000: 5.0}
"""What the loop may be held up at a time, by the number of tasks."""

BUDGET_S = {10_000: 1.0}
"""How long a snapshot may take."""

CAPTION = (
    "Tasks that wait for a lock, an event, a timer, and a timer five awaits deep, beside a loop that works "
    "for 0.2 ms at a time. Late: how much a timer of 0.5 ms is, at worst; of several snapshots, the best."
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Snapshots per cell.
        counts: Tasks alive.
    """

    rounds: int
    counts: tuple[int, ...]


FULL = Effort(rounds=7, counts=(10_000, 100_000))
QUICK = Effort(rounds=3, counts=(10_000,))


def measured(loop: str, count: int, rounds: int) -> dict[str, Any]:
    """Measure in a fresh process.

    Raises:
        SystemExit: That process failed; what it wrote is in the message.
    """
    command = [sys.executable, "-m", "benchmarks.snapshot_run", loop, str(count), "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: snapshots on {loop} could not be measured:\n{done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    rows, data = [], []
    for loop in LOOPS:
        if loop != "asyncio" and not is_installed(loop):
            continue
        for count in effort.counts:
            report.progress(f"snapshot: {count} tasks on {loop}")
            found = measured(loop, count, effort.rounds)
            data.append({"loop": loop, "count": count, **found})
            late_ms, took_s = min(found["during"]) * 1e3, min(found["took"])
            rows.append(
                (
                    loop,
                    f"{count:,}",
                    f"{found['alone'] * 1e3:.1f}",
                    f"{late_ms:.1f}",
                    report.mark(late_ms, BUDGET_MS.get(count)),
                    f"{took_s:.2f}",
                    report.mark(took_s, BUDGET_S.get(count)),
                    f"{found['told']:,}",
                )
            )
    loads = report.load_average()
    header = ("loop", "tasks", "ms late without", "ms late", "", "s it took", "", "told in detail")
    text = "\n\n".join(
        (
            "## Snapshots",
            f"{report.machine()} · {report.versions()} · {effort.rounds} snapshots, best, {loads}",
            CAPTION,
            report.table(header, rows, names=1),
        )
    )
    return text, {"snapshots": data}
