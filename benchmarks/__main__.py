"""One report on what we cost: tasks, steps, iterations, work items, locks, pools, a request, an exit."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from benchmarks import (
    connections,
    console,
    logs,
    loops,
    outage,
    pools,
    report,
    request,
    snapshot,
    task_spans,
    tasks,
    timed,
    waits,
)
from benchmarks import exit as ending
from benchmarks.environments import InstallError


def main() -> int:
    """Run what was asked for; return 1 if some of it could not be measured here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "part",
        nargs="?",
        choices=[
            "tasks",
            "task-spans",
            "loops",
            "pools",
            "waits",
            "timed",
            "connections",
            "logs",
            "console",
            "request",
            "exit",
            "snapshot",
            "outage",
            "all",
        ],
        default="all",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: a look, not a verdict"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every value to this file")
    arguments = parser.parse_args()

    data: dict[str, Any] = {"python": platform.python_version(), "machine": report.machine()}
    code = 0
    if arguments.part in ("tasks", "all"):
        text, data["tasks"] = tasks.run(tasks.QUICK if arguments.quick else tasks.FULL)
        print(text, flush=True)
    if arguments.part in ("task-spans", "all"):
        text, data["task_spans"] = task_spans.run(task_spans.QUICK if arguments.quick else task_spans.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("loops", "all"):
        text, data["loops"] = loops.run(loops.QUICK if arguments.quick else loops.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("pools", "all"):
        text, data["pools"] = pools.run(pools.QUICK if arguments.quick else pools.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("waits", "all"):
        text, data["waits"] = waits.run(waits.QUICK if arguments.quick else waits.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("timed", "all"):
        text, data["timed"] = timed.run(timed.QUICK if arguments.quick else timed.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("connections", "all"):
        effort = connections.QUICK if arguments.quick else connections.FULL
        text, data["connections"] = connections.run(effort)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("logs", "all"):
        text, data["logs"] = logs.run(logs.QUICK if arguments.quick else logs.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("console", "all"):
        text, data["console"] = console.run(console.QUICK if arguments.quick else console.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("request", "all"):
        try:
            text, data["request"] = request.run(request.QUICK if arguments.quick else request.FULL)
        except InstallError as reason:
            text, code = f"## A request\n\nNot measured: {reason}", 1
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("exit", "all"):
        text, data["exit"] = ending.run(ending.QUICK if arguments.quick else ending.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("snapshot", "all"):
        text, data["snapshot"] = snapshot.run(snapshot.QUICK if arguments.quick else snapshot.FULL)
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.part in ("outage", "all"):
        try:
            text, data["outage"] = outage.run(outage.QUICK if arguments.quick else outage.FULL)
        except outage.NotBuiltError as reason:  # no failure: it is an extra
            text = f"## A backend that is away\n\nNot measured: {reason}"
        print(f"\n{text}" if arguments.part == "all" else text, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
