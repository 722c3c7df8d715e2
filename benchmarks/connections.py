"""The price of connection pools that nobody has to wait for: bare, and ours.

Every process measures one variant, and the variants take turns, as in `benchmarks.tasks`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import report
from benchmarks.environments import ROOT
from benchmarks.waits import FULL, QUICK, Effort

__all__ = ["FULL", "QUICK", "run"]

BARE = "bare"
LABELS = {BARE: "bare", "ours": "ours"}
TITLES = {"sqlalchemy": "SQLAlchemy, QueuePool", "asyncpg": "asyncpg, Pool"}
BUDGET_NS = 2_000.0
"""What ours may add to a checkout and its checkin."""

CAPTION = "A checkout and its checkin, with a connection at hand; no server is asked for anything."

Values = dict[tuple[str, str], list[float]]
"""By kind and variant."""


def measured(variant: str, seconds: float) -> dict[str, float]:
    """Measure one variant in a fresh process.

    Raises:
        SystemExit: That process failed; what it wrote is in the message.
    """
    command = [sys.executable, "-m", "benchmarks.connection", variant, "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: {variant} could not be measured:\n{done.stderr.strip()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def values_of(effort: Effort) -> Values:
    """Measure every variant, in turn, round by round."""
    values: Values = {(kind, variant): [] for kind in TITLES for variant in LABELS}
    for number in range(effort.rounds):
        report.progress(f"connections: round {number + 1} of {effort.rounds}, {len(LABELS)} processes")
        for variant in LABELS:
            for kind, value in measured(variant, effort.seconds).items():
                values[kind, variant].append(value)
    return values


def table(values: Values) -> str:
    """Lay out all kinds."""
    rows = []
    for (kind, variant), found in values.items():
        bare = min(values[kind, BARE])
        added, budget = min(found) - bare, BUDGET_NS if variant != BARE else None
        rows.append(
            (
                TITLES[kind],
                LABELS[variant],
                f"{min(found):.0f}",
                f"{statistics.median(found):.0f}",
                f"{added:+.0f}" if variant != BARE else "",
                f"{min(found) / bare:.2f} x",
                f"{budget:+.0f}" if budget is not None else "",
                report.mark(added, budget),
            )
        )
    header = ("pool", "variant", "ns", "median", "added", "of bare", "budget", "")
    return report.table(header, rows, names=2)


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    values = values_of(effort)
    loads = report.load_average()
    text = "\n\n".join(
        (
            "## Connection pools",
            f"{report.machine()} · {report.versions()} · {effort.rounds} rounds, best of each, {loads}",
            CAPTION,
            table(values),
        )
    )
    data = [
        {
            "kind": kind,
            "variant": variant,
            "values": found,
            "budget": BUDGET_NS if variant != BARE else None,
        }
        for (kind, variant), found in values.items()
    ]
    return text, {"connections": data}
