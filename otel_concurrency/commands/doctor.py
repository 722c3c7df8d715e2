"""`otel-concurrency doctor`: what is set up, who decided it, and whether telemetry arrives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.programs import add_json, asking, print_json
from otel_concurrency.commands.saying import say

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.console.text import Style
    from otel_concurrency.doctor.report import Report
    from otel_concurrency.endpoints.client import Program

_TIMEOUT_S = 90.0
_LAST_LINES = 5
_START = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
_MARKS = {"ok": "ok  ", "info": "    ", "warn": "WARN", "fail": "FAIL"}


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    doctor = commands.add_parser(
        "doctor",
        help="say what is set up here, why, and whether telemetry arrives",
        description="Start as opentelemetry-instrument would here, with these variables, and tell which "
        "distro, configurator and instrumentors are chosen and why, which settings differ, and whether each "
        "signal arrives; or ask a running program. The exit code is 1 if something is broken.",
    )
    doctor.add_argument(
        "program",
        nargs="?",
        metavar="PROGRAM",
        help="process id, URL, host:port or :port of a running one (one that is started for this)",
    )
    add_json(doctor)
    doctor.add_argument("--verbose", action="store_true", help="also tell what is well and left out")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """Examine, and print."""
    return asking(_of_program)(options, stop) if options.program is not None else _of_environment(options)


def _of_program(options: argparse.Namespace, stop: StopRequest, program: Program) -> int:
    return _tell(options, program.ask("/debug/doctor", timeout_s=_TIMEOUT_S))


def _of_environment(options: argparse.Namespace) -> int:
    command = [sys.executable, "-c", _START, sys.executable, "-m", "otel_concurrency.doctor"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        say(f"what opentelemetry-instrument started did not end in {_TIMEOUT_S:g} s")
        return 1
    try:
        data = json.loads(ended.stdout.splitlines()[-1])
        return _tell(options, data)
    except (IndexError, ValueError, KeyError, TypeError):
        said = "\n".join(ended.stderr.strip().splitlines()[-_LAST_LINES:])
        say(f"what opentelemetry-instrument started ended with exit code {ended.returncode}:\n{said}")
        return 1


def _tell(options: argparse.Namespace, data: dict[str, Any]) -> int:
    from otel_concurrency.console.text import Style
    from otel_concurrency.doctor.report import Report

    report = Report.from_data(data)
    if options.json:
        print_json(data)
    else:
        print("\n".join(report_lines(report, Style.of(sys.stdout), is_verbose=options.verbose)))
    return int(report.status == "fail")


def report_lines(report: Report, style: Style, *, is_verbose: bool = True) -> Iterator[str]:
    """Yield the report; without what is left out of many instrumentors, unless asked for."""
    from otel_concurrency.console.text import clean

    for section in report.sections:
        told = [
            check
            for check in section.checks
            if is_verbose or section.title != "Instrumentors" or not check.text.startswith("left out: Dep")
        ]
        if not told:
            continue
        yield style.bold(section.title)
        for check in told:
            line = f"  {_MARKS[check.status]}  {clean(check.name)}: {clean(check.text)}"
            yield style.finish(style.red(line) if check.status in ("warn", "fail") else line)
