"""The table as data: which cells there are, what each must show, and how to say what it shows.

`python -m tests.e2e.propagation.table` prints it for ours, upstream's distro and bare Python, side by side.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

YES = "yes"  # trace, parent span and baggage are the submitter's; nothing outside of any span

POOL_METHODS = (
    "apply",
    "apply_async",
    "map",
    "map_async",
    "imap",
    "imap_unordered",
    "starmap",
    "starmap_async",
)
MADE = ("made before", "made inside")
LOOP_CELLS = (
    "create_task",
    "loop.create_task",
    "gather",
    *(("TaskGroup",) if sys.version_info >= (3, 11) else ()),
    "call_soon",
    "asyncio.to_thread",
    "run_in_executor(None)",
    "run_in_executor(pool)",
    "AnyIO worker thread",
    "Thread, call_soon_threadsafe",
    "pool, run_coroutine_threadsafe",
    "create_subprocess_exec",
    "create_subprocess_shell",
)
THREAD_CELLS = (
    "Thread",
    "Thread subclass with its own run",
    "Timer",
    *(
        f"{name}, {made}"
        for name in (
            "ThreadPoolExecutor.submit",
            "ThreadPoolExecutor.map",
            "Future done-callback in a worker",
            *(f"ThreadPool.{method}" for method in POOL_METHODS),
        )
        for made in MADE
    ),
)
PROCESS_CELLS = (
    "Process",
    "Process subclass with its own run",
    *(
        f"{name}, {made}"
        for name in (
            "ProcessPoolExecutor.submit",
            "ProcessPoolExecutor.map",
            *(f"Pool.{method}" for method in POOL_METHODS),
        )
        for made in MADE
    ),
)
CELLS: dict[str, tuple[str, ...]] = {  # by column
    "threads": THREAD_CELLS,
    "asyncio": LOOP_CELLS,
    "uvloop": LOOP_CELLS,
    "fork": (*PROCESS_CELLS, "os.fork"),
    "spawn": PROCESS_CELLS,
    "forkserver": PROCESS_CELLS,
    "programs": ("subprocess.run", "subprocess.check_output of a shell", "subprocess.Popen"),
}
# The application's own context variables come along inside a process.
WITH_VARIABLES = ("threads", "asyncio", "uvloop")

# Exporters, and instrumentors that have no part in it, only make each of the many starts slower.
SETTINGS = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": (
        "aiohttp-client,celery,fastapi,concurrency_fastapi,exceptions,logging"
    ),
}
PROGRAM = Path(__file__).with_name("program.py")
COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")
_LEFT_OUT = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_OURS = [
    each.name for each in entry_points(group="opentelemetry_instrumentor") if "concurrency_" in each.name
]
UPSTREAM = {  # ours would load there as well
    "OTEL_PYTHON_DISTRO": "distro",
    "OTEL_PYTHON_CONFIGURATOR": "configurator",
    _LEFT_OUT: ",".join([SETTINGS[_LEFT_OUT], *_OURS]),
}


def run(column: str, environ: Mapping[str, str], *, bare: bool = False) -> dict[str, str]:
    """Run one column's program; returns the verdict on each of its cells.

    Args:
        column: One of `CELLS`.
        environ: Without anything that belongs to a run around this one.
        bare: Leave out `opentelemetry-instrument`.

    Raises:
        RuntimeError: The program did not come to its end; the message has what it said.
    """
    command = [sys.executable, str(PROGRAM), column]
    ended = subprocess.run(
        command if bare else [str(COMMAND), *command],
        env={**SETTINGS, **environ},
        capture_output=True,
        text=True,
        timeout=110,
    )
    if ended.returncode:
        raise RuntimeError(f"the program of column {column} ended with {ended.returncode}:\n{ended.stderr}")
    with_variables = column in WITH_VARIABLES and not bare
    observed = json.loads(ended.stdout.splitlines()[-1])
    return {
        cell: verdict(rows, with_variables and not cell.startswith("create_subprocess"))
        for cell, rows in observed.items()
    }


def verdict(rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], with_variables: bool) -> str:
    """Say in a word or two what became of the submitter's context.

    Args:
        rows: What the items saw, and should have seen: inside a span, inside another one, outside of any.
        with_variables: Whether the application's own variables must be there, too.
    """
    (first, wanted_first), (second, wanted_second), (outside, nothing) = rows
    if second["trace"] and second["trace"] == wanted_first["trace"]:
        return "stale"
    if outside["trace"] or outside["baggage"] or (with_variables and outside["variable"]):
        return "stale outside"
    pairs = ((first, wanted_first), (second, wanted_second), (outside, nothing))
    if not first["trace"] or not second["trace"]:
        return "lost" if not first["trace"] and not second["trace"] else "at times"
    if not all(is_child(seen, wanted) for seen, wanted in pairs):
        return "wrong parent"
    if any(seen["baggage"] != wanted["baggage"] for seen, wanted in pairs):
        return "no baggage"
    if with_variables and any(seen["variable"] != wanted["variable"] for seen, wanted in pairs):
        return "no variables"
    return YES


def is_child(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a new span would hang on the submitter's: at once, or on the one span of the item itself."""
    return seen["trace"] == wanted["trace"] and wanted["span"] in (seen["span"], seen["parent"])


def printed(tables: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """Lay out verdicts by source, column and cell; columns with the same cells stand side by side."""
    lines = []
    for columns in (("asyncio", "uvloop"), ("threads",), ("fork", "spawn", "forkserver"), ("programs",)):
        cells = dict.fromkeys(cell for column in columns for cell in CELLS[column])
        heads = [f"{source}: {column}".removeprefix(": ") for source in tables for column in columns]
        rows = [
            [tables[source].get(column, {}).get(cell, "-") for source in tables for column in columns]
            for cell in cells
        ]
        widths = [max(map(len, each)) for each in zip(heads, *rows, strict=True)]
        width = max(map(len, cells))
        for name, row in (("", heads), *zip(cells, rows, strict=True)):
            told = "  ".join(f"{each:<{wide}}" for each, wide in zip(row, widths, strict=True))
            lines.append(f"{name:<{width}}  {told}".rstrip())
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    import os

    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    sources: dict[str, dict[str, Any]] = {
        "ours": {"environ": environ},
        "upstream": {"environ": environ | UPSTREAM},
        "bare": {"environ": environ, "bare": True},
    }
    wanted = sys.argv[1:] or list(sources)
    print(printed({name: {column: run(column, **sources[name]) for column in CELLS} for name in wanted}))


if __name__ == "__main__":
    main()
