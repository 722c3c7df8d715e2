"""`otel-concurrency top`: the live picture of a program, in the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.programs import add_program, asking, describe, print_json

if TYPE_CHECKING:
    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.console.text import Style
    from otel_concurrency.endpoints.client import Program
    from otel_concurrency.snapshot import Snapshot

INTERVAL_S = 2.0
_TASKS = 200
_POLL_S = 0.1
_CLEAR = "\x1b[H\x1b[2J"
_SCREEN, _SCREEN_END = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    top = commands.add_parser(
        "top",
        help="watch the tasks, loops, pools and findings of a program",
        description="Show what a program does, again and again until Ctrl-C: findings, event loops, tasks by "
        "coroutine, pools, executors, locks, threads. Where the output is no terminal, once.",
    )
    add_program(top)
    top.add_argument(
        "--interval",
        type=_seconds,
        default=INTERVAL_S,
        metavar="SECONDS",
        help=f"between looks ({INTERVAL_S:g})",
    )
    top.add_argument("--once", action="store_true", help="one look")
    top.set_defaults(run=asking(run))


def run(options: argparse.Namespace, stop: StopRequest, program: Program) -> int:
    """Look until told to stop; with --json, a line for each look."""
    is_live = not options.once and (options.json or sys.stdout.isatty())
    is_screen = is_live and not options.json
    if is_screen:
        sys.stdout.write(_SCREEN)
    try:
        while not stop.is_made:
            _look(options, program, is_screen)
            if not is_live:
                break
            next_s = time.monotonic() + options.interval
            while not stop.is_made and time.monotonic() < next_s:
                time.sleep(_POLL_S)
    finally:
        if is_screen:
            sys.stdout.write(_SCREEN_END)
            sys.stdout.flush()
    return 0


def _look(options: argparse.Namespace, program: Program, is_screen: bool) -> None:
    data = program.ask("/debug/snapshot", limit=_TASKS)
    found = program.ask("/debug/diagnose")
    if options.json:
        print_json({"snapshot": data, "diagnosis": found})
        return
    from otel_concurrency.commands.diagnose import diagnosis_of
    from otel_concurrency.console.text import Style
    from otel_concurrency.snapshot import Snapshot

    style = Style.of(sys.stdout)
    lines = [style.bold(describe(program))]
    for finding in diagnosis_of(found).open:
        mark = style.red if finding.severity == "crit" else style.bold
        lines.append(f"{mark(finding.severity.upper())} {style.finish(finding.sentence)}")
    lines += picture_lines(Snapshot.from_data(data), style)
    if is_screen:
        import shutil

        lines = lines[: shutil.get_terminal_size().lines - 1]
        sys.stdout.write(_CLEAR)
    print("\n".join(lines), flush=True)


def picture_lines(seen: Snapshot, style: Style) -> Iterator[str]:
    """Yield the picture, without what there is none of."""
    from otel_concurrency.commands.ps import group_lines
    from otel_concurrency.commands.tables import table
    from otel_concurrency.console.text import count, duration

    states = ", ".join(f"{number} {state}" for state, number in seen.states.items())
    waits = ", ".join(f"{kind} {number}" for kind, number in seen.waits.items())
    yield f"{seen.task_count} tasks: {states or 'none'}"
    if waits:
        yield f"waiting for: {waits}"
    sections: list[tuple[tuple[str, ...], list[list[str]]]] = [
        (
            ("loop", "type", "tasks", "held for", "by"),
            [
                [str(each.id), each.type, count(each.tasks), duration(each.iteration_s), each.coroutine]
                for each in seen.loops
            ],
        ),
        (
            ("pool", "kind", "used", "idle", "limit", "pending"),
            [
                [each.name, each.kind, *map(count, (each.used, each.idle, each.limit, each.pending))]
                for each in seen.pools
            ],
        ),
        (
            ("executor", "kind", "active", "idle", "limit", "queued"),
            [
                [each.name, each.kind, *map(count, (each.active, each.idle, each.limit, each.queued))]
                for each in seen.executors
            ],
        ),
        (
            ("lock", "kind", "waiting", "held for"),
            [
                [each.name or hex(each.id), each.kind, count(len(each.waiting)), duration(each.held_s)]
                for each in seen.locks
            ],
        ),
        (
            ("thread", "state", "waits for", "cpu", "at"),
            [
                [
                    each.name,
                    each.state,
                    each.waits_for,
                    duration(each.cpu_s),
                    str(each.frames[0].function) if each.frames else "",
                ]
                for each in seen.threads
            ],
        ),
    ]
    if seen.coroutines:
        yield ""
        yield from group_lines(seen, style)
    numbers = frozenset(
        {"tasks", "held for", "used", "idle", "limit", "pending", "active", "queued", "waiting", "cpu"}
    )
    for header, rows in sections:
        if rows:
            yield ""
            yield from table(header, rows, style, numbers=numbers, give=header[-1])


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3_600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600 seconds")
    return seconds
