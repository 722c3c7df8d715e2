"""Which program a command asks, and what is said when it cannot be asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from otel_concurrency.commands.saying import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.endpoints.client import Program

    Run = Callable[[argparse.Namespace, StopRequest, Program], int]

REMEDY = "start it with OTEL_PYTHON_CONCURRENCY_HTTP_PORT=0 (any free port) in its environment"


def add_program(parser: argparse.ArgumentParser) -> None:
    """Add the program to ask, and the choice of JSON."""
    parser.add_argument(
        "program",
        nargs="?",
        metavar="PROGRAM",
        help="process id, URL, host:port or :port (the only program there is)",
    )
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print what programs can read")


def print_json(content: object) -> None:
    """Print content as one line of JSON."""
    print(json.dumps(content, ensure_ascii=False, default=repr), flush=True)


def asking(run: Run) -> Callable[[argparse.Namespace, StopRequest], int]:
    """Make what runs a command out of what it does with the program that is meant."""

    def run_command(options: argparse.Namespace, stop: StopRequest) -> int:
        from otel_concurrency.endpoints.client import AskError, NotFoundError

        try:
            program = _chosen(options.program)
            return 2 if program is None else run(options, stop, program)
        except (NotFoundError, AskError) as error:
            say(str(error))
            return 1

    return run_command


def _chosen(which: str | None) -> Program | None:
    """Return the program meant, or say which there are."""
    from otel_concurrency.endpoints import client

    if which is not None:
        return client.find(which)
    known = client.programs()
    if len(known) == 1:
        return known[0]
    if not known:
        say(f"no program of yours can be asked: {REMEDY}")
        return None
    say("which one? There are:")
    for program in known:
        say(f"    {describe(program)}")
    return None


def describe(program: Program) -> str:
    """Say in a line which program it is."""
    entry = program.entry
    if entry is None:
        return program.url
    return f"{entry.pid}  {program.url}  {entry.service}  {' '.join(entry.command)}"[:110].rstrip()
