"""`otel-concurrency ps`: the tasks of a program, each with what it does and what it waits for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.arguments import positive
from otel_concurrency.commands.programs import add_program, asking, print_json
from otel_concurrency.commands.saying import say

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.console.text import Style
    from otel_concurrency.endpoints.client import Program
    from otel_concurrency.snapshot import Snapshot

LIMIT = 100
_FILTERS = {
    "state": "running, scheduled or waiting",
    "wait": "what it waits for: lock, sleep, db_pool, …",
    "coroutine": "module.function, or a glob",
    "name": "the task's name, or a glob",
}


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    ps = commands.add_parser(
        "ps",
        help="list the tasks of a program, and what they wait for",
        description="List the live tasks of a program, the oldest first, with what they do, what they wait "
        "for, and where they stand.",
    )
    add_program(ps)
    ps.add_argument("--limit", type=positive, default=LIMIT, metavar="N", help=f"tasks told ({LIMIT})")
    ps.add_argument("--group", action="store_true", help="one line for each coroutine function")
    for name, meaning in _FILTERS.items():
        ps.add_argument(f"--{name}", metavar="WHICH", help=f"only those: {meaning}")
    ps.set_defaults(run=asking(run))


def run(options: argparse.Namespace, stop: StopRequest, program: Program) -> int:
    """Ask once, and print."""
    names = {"coroutine": "group"}
    wanted = {names.get(name, name): getattr(options, name) for name in _FILTERS if getattr(options, name)}
    data = program.ask("/debug/tasks", limit=options.limit, **wanted)
    if options.json:
        print_json(data)
        return 0
    from otel_concurrency.console.text import Style
    from otel_concurrency.snapshot import Snapshot

    seen = Snapshot.from_data({name: part for name, part in data.items() if name != "found"})
    style = Style.of(sys.stdout)
    lines = group_lines(seen, style) if options.group else task_lines(seen, style)
    print("\n".join(lines))
    say(f"{data.get('found', len(seen.tasks))} of {seen.task_count} tasks; {len(seen.tasks)} told")
    return 0


def task_lines(seen: Snapshot, style: Style) -> list[str]:
    """Return a table of tasks."""
    from otel_concurrency.commands.tables import table
    from otel_concurrency.commands.task_words import place_words, state_words, wait_words
    from otel_concurrency.console.text import count, duration

    rows = [
        [
            task.name,
            task.coroutine,
            state_words(task),
            duration(task.age_s),
            duration(task.busy_s),
            count(task.steps),
            wait_words(task.wait),
            place_words(task),
            task.trace_id[:8],
        ]
        for task in seen.tasks
    ]
    header = ("task", "coroutine", "state", "age", "busy", "steps", "waits for", "at", "trace")
    return table(header, rows, style, numbers=frozenset({"age", "busy", "steps"}), give="coroutine")


def group_lines(seen: Snapshot, style: Style) -> list[str]:
    """Return a table of coroutine functions, the most numerous first."""
    from otel_concurrency.commands.tables import table
    from otel_concurrency.console.text import count

    rows = [
        [
            each.coroutine,
            count(each.count),
            ", ".join(f"{state} {number}" for state, number in each.states.items()),
            ", ".join(f"{kind} {number}" for kind, number in each.waits.items()),
        ]
        for each in seen.coroutines
    ]
    header = ("coroutine", "tasks", "states", "wait for")
    return table(header, rows, style, numbers=frozenset({"tasks"}), give="coroutine")
