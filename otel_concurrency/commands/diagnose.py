"""`otel-concurrency diagnose`: what is wrong with a program, by whom, and what helps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.programs import add_program, asking, print_json

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.console.text import Style
    from otel_concurrency.diagnosis.board import Diagnosis
    from otel_concurrency.diagnosis.finding import Finding
    from otel_concurrency.endpoints.client import Program

SEVERITIES = ("info", "warn", "crit")


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    diagnose = commands.add_parser(
        "diagnose",
        help="say what is wrong with a program, and what helps",
        description="Print what a program has found about itself: the findings that stand now, the "
        "weightiest first, with their evidence, the culprit and the next step.",
    )
    add_program(diagnose)
    diagnose.add_argument(
        "--fail-on",
        choices=SEVERITIES,
        metavar="SEVERITY",
        help=f"exit code 1 from this severity on: {', '.join(SEVERITIES)} (never)",
    )
    diagnose.set_defaults(run=asking(run))


def run(options: argparse.Namespace, stop: StopRequest, program: Program) -> int:
    """Ask once, and print."""
    from otel_concurrency.console.text import Style

    data = program.ask("/debug/diagnose")
    found = diagnosis_of(data)
    if options.json:
        print_json(data)
    else:
        style = Style.of(sys.stdout)
        print("\n".join(style.finish(line) for line in diagnosis_lines(found, style)))
    if options.fail_on is None:
        return 0
    return int(
        any(SEVERITIES.index(each.severity) >= SEVERITIES.index(options.fail_on) for each in found.open)
    )


def diagnosis_of(data: dict[str, Any]) -> Diagnosis:
    """Return the diagnosis of what `/debug/diagnose` has answered."""
    from otel_concurrency.diagnosis.board import Diagnosis

    return Diagnosis.from_data({name: part for name, part in data.items() if name != "loops"})


def diagnosis_lines(found: Diagnosis, style: Style) -> Iterator[str]:
    """Yield what is to be said."""
    if not found.is_on:
        yield "Nobody judges in this program: its diagnosis is off."
        return
    if not found.open:
        yield f"Nothing stands out, after {found.windows} windows of {found.window_s:g} s."
    for finding in found.open:
        yield from finding_lines(finding, style)
    for finding in found.recheck:
        yield style.dim(f"to be seen again: {_clean(finding.sentence)}")


def finding_lines(finding: Finding, style: Style) -> Iterator[str]:
    """Yield one finding."""
    from otel_concurrency.diagnosis.finding import CLASSES

    mark = {"crit": style.red, "warn": style.bold}.get(finding.severity, style.dim)
    kind = f" [{CLASSES[finding.bottleneck]}]" if finding.bottleneck in CLASSES else ""
    yield f"{mark(finding.severity.upper())} {finding.rule}, {_clean(finding.subject)}{kind}"
    yield f"    {_clean(finding.sentence)}"
    culprit = finding.culprit
    where = f" ({culprit.file}:{culprit.line})" if culprit.file else ""
    if str(culprit) != "nobody was seen":
        yield f"    culprit: {_clean(f'{culprit}{where}')}"
    for each in finding.evidence:
        threshold = "" if each.threshold is None else f" (threshold {each.threshold:g})"
        unit = "" if each.unit == "1" else f" {each.unit.strip('{}')}"
        yield style.dim(f"    {_clean(each.name)}: {each.value:.4g}{unit}{threshold}")
    for stack in finding.stacks:
        yield style.dim(f"    seen {stack.count} times: {_clean(' < '.join(stack.frames[:3]))}")
    if finding.traces:
        yield style.dim(f"    traces: {', '.join(finding.traces)}")
    if finding.advice:
        yield f"    → {_clean(finding.advice)}"


def _clean(text: str) -> str:
    from otel_concurrency.console.text import clean

    return clean(text)
