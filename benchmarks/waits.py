"""The price of asyncio's locks and queues: bare, ours native, ours pure, and what is told only on request.

Every process measures one variant on one loop, and the variants take turns, as in `benchmarks.tasks`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks import report
from benchmarks.environments import ROOT
from benchmarks.variants import LOOPS, is_installed

BARE = "bare"
LABELS = {
    BARE: "bare",
    "native": "ours, native",
    "pure": "ours, pure",
    "native_names": "ours, native, SYNC_WAITS=names",
    "native_links": "ours, native, QUEUE_LINKS=true",
}
TITLES = {
    "lock": "ns, Lock.acquire and release, free",
    "contended": "ns, Lock.acquire and release, waited for",
    "queue": "ns, Queue.put and get, neither waits",
}
BUDGETS_NS = {"lock": 40.0, "contended": 1_000.0, "queue": 80.0}
"""What ours may add, as it is by default."""

BY_DEFAULT = ("native", "pure")
CAPTION = (
    "What is waited for is wanted by 50 tasks at a time, so that each waits each time; a step is part of it."
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Values per cell.
        seconds: How long a process reads.
    """

    rounds: int
    seconds: float


FULL = Effort(rounds=7, seconds=1.0)
QUICK = Effort(rounds=3, seconds=0.6)

Values = dict[tuple[str, str, str], list[float]]
"""By kind, loop and variant."""


def measured(variant: str, loop: str, seconds: float) -> dict[str, float]:
    """Measure one variant in a fresh process.

    Raises:
        SystemExit: That process failed; what it wrote is in the message.
    """
    command = [sys.executable, "-m", "benchmarks.wait", variant, loop, "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: {variant} on {loop} could not be measured:\n{done.stderr.strip()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def values_of(effort: Effort) -> Values:
    """Measure every variant on every loop that is installed, in turn, round by round."""
    native = is_installed("otel_concurrency.probes._native")
    variants = [key for key in LABELS if native or not key.startswith("native")]
    cells = [
        (loop, variant) for loop in LOOPS if loop == "asyncio" or is_installed(loop) for variant in variants
    ]
    values: Values = {(kind, *cell): [] for kind in TITLES for cell in cells}
    for number in range(effort.rounds):
        report.progress(f"waits: round {number + 1} of {effort.rounds}, {len(cells)} processes")
        for loop, variant in cells:
            for kind, value in measured(variant, loop, effort.seconds).items():
                values[kind, loop, variant].append(value)
    return values


def budget_of(kind: str, variant: str) -> float | None:
    """Return what a variant may add, ns; None for what is only on request."""
    return BUDGETS_NS[kind] if variant in BY_DEFAULT else None


def table(values: Values, kind: str) -> str:
    """Lay out one kind."""
    rows = []
    for (each, loop, variant), found in values.items():
        if each == kind:
            bare = min(values[kind, loop, BARE])
            added, budget = min(found) - bare, budget_of(kind, variant)
            rows.append(
                (
                    loop,
                    LABELS[variant],
                    f"{min(found):.0f}",
                    f"{statistics.median(found):.0f}",
                    f"{added:+.0f}" if variant != BARE else "",
                    f"{min(found) / bare:.2f} x",
                    f"{budget:+.0f}" if budget is not None else "",
                    report.mark(added, budget),
                )
            )
    header = ("loop", "variant", TITLES[kind], "median", "added", "of bare", "budget", "")
    return report.table(header, rows, names=2)


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    values = values_of(effort)
    loads = report.load_average()
    text = "\n\n".join(
        (
            "## Locks and queues",
            f"{report.machine()} · {report.versions()} · {effort.rounds} rounds, best of each, {loads}",
            CAPTION,
            *(table(values, kind) for kind in TITLES),
        )
    )
    data = [
        {"kind": kind, "loop": loop, "variant": variant, "values": found, "budget": budget_of(kind, variant)}
        for (kind, loop, variant), found in values.items()
    ]
    return text, {"waits": data}
