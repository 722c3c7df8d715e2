"""One table over several interpreters, from the files that `python -m benchmarks --json FILE` wrote."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report

LOOPS = ("asyncio", "uvloop")


def added_cell(timings: Sequence[dict[str, Any]], kind: str, variant: str, digits: int) -> str:
    """Return what a variant adds on both loops, as `asyncio / uvloop`; `!` is over budget."""
    cells: list[str] = []
    for loop in LOOPS:
        for row in timings:
            if (row["loop"], row["kind"], row["variant"]) == (loop, kind, variant):
                over = row["budget"] is not None and row["added"] > row["budget"]
                cells.append(f"{row['added']:+.{digits}f}{'!' if over else ''}")
    return " / ".join(cells) or "-"


def live_cell(live: dict[str, float], variant: str) -> str:
    """Return what a live task costs over bare, in bytes."""
    return f"{live[variant] - live['bare']:+.0f}" if variant in live else "-"


def summary_table(runs: Sequence[dict[str, Any]]) -> str:
    """Lay out a line an interpreter."""
    rows: list[tuple[str, ...]] = []
    for run in sorted(runs, key=lambda run: [int(part) for part in run["python"].split(".")]):
        tasks = run["tasks"]
        timings, live = tasks["timings"], tasks["memory"]["live"]
        rows.append(
            (
                run["python"],
                " / ".join(
                    f"{min(row['values']):.2f}"
                    for row in timings
                    if row["kind"] == "task" and row["variant"] == "bare"
                ),
                added_cell(timings, "task", "native", 2),
                added_cell(timings, "task", "pure", 2),
                added_cell(timings, "task", "upstream", 1),
                added_cell(timings, "step", "native", 0),
                live_cell(live, "native"),
                live_cell(live, "pure"),
            )
        )
    return report.table(
        (
            "CPython",
            "bare task, µs",
            "native",
            "pure",
            "upstream",
            "native, ns a step",
            "native, bytes a live task",
            "pure",
        ),
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.files]
    print(summary_table(runs))


if __name__ == "__main__":
    main()
