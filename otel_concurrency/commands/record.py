"""`otel-concurrency record`: some seconds of a program, as a trace that Perfetto opens."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.programs import add_program, asking, describe, print_json
from otel_concurrency.commands.saying import say

if TYPE_CHECKING:
    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.diagnosis.finding import Finding
    from otel_concurrency.endpoints.client import Program

SECONDS = 5.0
_MAX_SECONDS = 60.0
_EVERY_S = 0.1
_ASK_EVERY_S = 1.0
_PATIENCE_S = 30.0
SIGNAL = "SIGUSR2"


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    record = commands.add_parser(
        "record",
        help="record some seconds of a program, for Perfetto",
        description="Write what a program does into a file that https://ui.perfetto.dev opens: a track for "
        "each event loop, thread and task, with trace ids. Of the next seconds; or of the last ones before a "
        "signal or a finding.",
    )
    add_program(record)
    record.add_argument(
        "--seconds", type=_seconds, default=SECONDS, metavar="N", help=f"how many ({SECONDS:g})"
    )
    record.add_argument("--output", metavar="FILE", help="where to (otel-concurrency-<process>-<time>.json)")
    when = record.add_mutually_exclusive_group()
    if hasattr(signal, SIGNAL):
        when.add_argument(
            "--on-signal",
            action="store_true",
            help=f"wait for {SIGNAL} to this command, and write",
        )
    when.add_argument(
        "--on-finding", action="store_true", help="wait for the diagnosis to find something new, and write"
    )
    record.set_defaults(run=asking(run), on_signal=False)


def run(options: argparse.Namespace, stop: StopRequest, program: Program) -> int:
    """Record, and write."""
    from otel_concurrency.endpoints.client import AskError

    if options.on_signal or options.on_finding:
        trace = _of_last_seconds(options, stop, program)
    else:
        say(f"recording {options.seconds:g} s of {describe(program)}")
        timeout_s = options.seconds + _PATIENCE_S
        trace = program.ask("/debug/trace", timeout_s=timeout_s, seconds=options.seconds)
    if not isinstance(trace, dict) or not trace.get("traceEvents"):
        raise AskError(f"{program.url} has told nothing that could be drawn")
    path = Path(options.output or _usual_name(program))
    try:
        path.write_text(json.dumps(trace, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        say(f"{path} cannot be written: {error.strerror or error}")
        return 1
    seen = trace.get("otherData", {}).get("snapshots", 0)
    if options.json:
        print_json({"file": str(path), "events": len(trace["traceEvents"]), "snapshots": seen})
    else:
        print(path)
    say(f"{seen} snapshots; https://ui.perfetto.dev opens it")
    return 0


def _of_last_seconds(options: argparse.Namespace, stop: StopRequest, program: Program) -> dict[str, Any]:
    from otel_concurrency.commands.diagnose import diagnosis_of
    from otel_concurrency.snapshot import Snapshot
    from otel_concurrency.timeline.perfetto import trace_of
    from otel_concurrency.timeline.recording import MAX_TASKS, Ring

    def findings() -> tuple[Finding, ...]:
        return diagnosis_of(program.ask("/debug/diagnose")).open

    ring = Ring(options.seconds)
    known = {finding.key for finding in findings()}
    asked_s = time.monotonic()
    with _signals(options.on_signal) as came:
        what = f"{SIGNAL} to this process" if options.on_signal else "a new finding"
        say(f"watching {describe(program)}; waiting for {what}")
        while not came():
            stop.check()
            ring.add(Snapshot.from_data(program.ask("/debug/snapshot", limit=MAX_TASKS)))
            if options.on_finding and time.monotonic() - asked_s >= _ASK_EVERY_S:
                asked_s = time.monotonic()
                fresh = [finding for finding in findings() if finding.key not in known]
                if fresh:
                    say(f"found: {fresh[0].sentence}")
                    break
            time.sleep(_EVERY_S)
    if not len(ring):
        ring.add(Snapshot.from_data(program.ask("/debug/snapshot", limit=MAX_TASKS)))
    return trace_of(ring, findings(), program=describe(program))


@contextlib.contextmanager
def _signals(are_wanted: bool) -> Iterator[Any]:
    """Note the signal for as long as the block runs; yields what tells whether it came."""
    came: list[int] = []
    number = getattr(signal, SIGNAL, None) if are_wanted else None
    before = signal.signal(number, lambda *_: came.append(1)) if number is not None else None
    try:
        yield lambda: bool(came)
    finally:
        if number is not None:
            signal.signal(number, before)


def _usual_name(program: Program) -> str:
    who = program.entry.pid if program.entry is not None else "program"
    return f"otel-concurrency-{who}-{time.strftime('%Y%m%d-%H%M%S')}.json"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {_MAX_SECONDS:g} seconds")
    return seconds
