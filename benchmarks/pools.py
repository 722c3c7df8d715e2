"""The price of a pool's work item, side by side: bare, ours native, ours pure, upstream, Logfire, ddtrace.

Every value of a thread pool comes from a process of its own, and the variants take turns, as in
`benchmarks.tasks`. Round trips through process pools depend on where the kernel runs the two processes and
on what else the machine does, and move by a quarter from one second to the next: there, processes of all
variants live side by side, take turns every few milliseconds in an order that changes, and what counts is the
median of the ratios of neighbours; and they are started anew several times, as each lays out its memory
differently.

Upstream, Logfire and ddtrace carry the context and nothing else; ours also keeps queue time, run time and
outcome. All but bare run inside a recording span, where the label says nothing else: then there is a context
to carry.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.environments import ROOT, InstallError, peer_environment
from benchmarks.variants import is_installed

BARE = "bare"
LABELS = {
    BARE: "bare",
    "native": "ours, native",
    "native_no_span": "ours, native, no span",
    "native_worker_span": "ours, native, a span for each item",
    "pure": "ours, pure",
    "upstream": "upstream",
    "logfire": "Logfire",
    "ddtrace": "ddtrace",
}
NEEDS = {
    "native": "otel_concurrency.probes._native",
    "native_no_span": "otel_concurrency.probes._native",
    "native_worker_span": "otel_concurrency.probes._native",
    "upstream": "opentelemetry.instrumentation.threading",
}
PEERS = ("logfire", "ddtrace")
THREAD_BUDGET_US = 1.5
"""What a work item of a thread pool may cost on top of a bare one."""

PROCESS_BUDGET = 0.10
"""What a round trip through a process pool may cost on top of a bare one, as a share of it."""

CAPTION = (
    "Bare runs outside any span; all others inside a recording one, where they do not say `no span`. Worker"
    " processes have a tracer provider where they are ours; items that tell nothing make no spans there,"
    " where the label does not say that they do."
    " Of bare, for round trips, is the median of the ratios to the bare turn next to each. Upstream carries"
    " nothing to other processes."
)

WITHIN_BUDGET = ("native", "native_no_span")
THREAD_VARIANTS = (BARE, "native", "pure", "upstream", *PEERS)
PROCESS_VARIANTS = (BARE, "native_no_span", "native", "native_worker_span", "upstream")
ROUND_TRIPS = 100
"""In one go, before it is the next variant's turn."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Values per cell of a thread pool.
        seconds: How long one value of those is read.
        starts: How often the processes that measure round trips are started.
        turns: How often each of them has its turn.
    """

    rounds: int
    seconds: float
    starts: int
    turns: int


FULL = Effort(rounds=7, seconds=0.7, starts=10, turns=40)
QUICK = Effort(rounds=2, seconds=0.3, starts=3, turns=15)


def interpreters() -> tuple[dict[str, str], list[str]]:
    """Return the interpreter of each variant that can be had, and a line about each that cannot."""
    found = {key: sys.executable for key in LABELS if key not in PEERS and is_installed(NEEDS.get(key, "os"))}
    missing = []
    for peer in PEERS:
        try:
            found[peer] = str(peer_environment(peer) / "python")
        except InstallError as reason:
            missing.append(f"{LABELS[peer]} is not measured: {str(reason).strip().splitlines()[-1]}")
    return found, missing


def started(interpreter: str, variant: str, kind: str, *options: str) -> subprocess.Popen[str]:
    """Start a process that measures."""
    return subprocess.Popen(
        [interpreter, str(Path("benchmarks") / "pool_item.py"), variant, kind, *options],
        cwd=ROOT,
        env={
            **os.environ,
            "DD_TRACE_STARTUP_LOGS": "false",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def measured(interpreter: str, variant: str, kind: str, seconds: float) -> float:
    """Measure one value in a fresh process.

    Raises:
        InstallError: That process failed; the end of what it wrote is in the message.
    """
    process = started(interpreter, variant, kind, "--seconds", str(seconds))
    out, err = process.communicate()
    if process.returncode:
        raise InstallError(f"{LABELS[variant]} failed:\n{err.strip()[-500:]}")
    value: float = json.loads(out.splitlines()[-1])["value"]
    return value


def asked(process: subprocess.Popen[str], count: int) -> float:
    """Return the time of a round trip, µs, from a process that serves them.

    Raises:
        InstallError: That process failed; the end of what it wrote is in the message.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
        value: float = json.loads(process.stdout.readline())["value"]
    except (OSError, ValueError):
        process.kill()
        raise InstallError(f"A benchmark failed:\n{process.stderr.read().strip()[-500:]}") from None
    return value


def round_trips_of(found: dict[str, str], effort: Effort) -> dict[str, list[float]]:
    """Measure round trips of all variants, turn by turn: the values of one turn are neighbours."""
    values: dict[str, list[float]] = {variant: [] for variant in found}
    for number in range(effort.starts):
        report.progress(f"pools: process, start {number + 1} of {effort.starts}, {len(found)} processes")
        processes = {
            variant: started(interpreter, variant, "process") for variant, interpreter in found.items()
        }
        for process in processes.values():
            asked(process, 1)  # all are there, and warm
        for _ in range(effort.turns):
            for variant in random.sample(list(processes), len(processes)):
                values[variant].append(asked(processes[variant], ROUND_TRIPS))
        for process in processes.values():
            process.communicate()  # nothing more to do
    return values


def ratio(values: dict[str, list[float]], variant: str) -> float:
    """Return the median of a variant's values, each divided by its bare neighbour."""
    return statistics.median(value / bare for value, bare in zip(values[variant], values[BARE], strict=True))


def round_trip_table(values: dict[str, list[float]]) -> str:
    """Lay out round trips."""
    rows = []
    for variant, found in values.items():
        added = ratio(values, variant) - 1
        allowed = PROCESS_BUDGET if variant in WITHIN_BUDGET else None
        rows.append(
            (
                LABELS[variant],
                f"{min(found):.1f}",
                f"{statistics.median(found):.1f}",
                f"{added + 1:.3f} x",
                f"{added:+.1%}" if variant != BARE else "",
                f"{allowed:+.0%}" if allowed is not None else "",
                report.mark(added, allowed),
            )
        )
    unit = "µs, ProcessPoolExecutor round trip"
    return report.table(("variant", unit, "median", "of bare", "added", "budget", ""), rows)


def values_of(kind: str, found: dict[str, str], effort: Effort, missing: list[str]) -> dict[str, list[float]]:
    """Measure the variants in turn, round by round; one that fails is left out, with a line about it."""
    values: dict[str, list[float]] = {variant: [] for variant in found}
    for number in range(effort.rounds):
        report.progress(f"pools: {kind}, round {number + 1} of {effort.rounds}, {len(values)} processes")
        for variant in list(values):
            try:
                values[variant].append(measured(found[variant], variant, kind, effort.seconds))
            except InstallError as reason:
                if variant == BARE:
                    raise
                del values[variant]
                missing.append(f"{LABELS[variant]} is not measured: {str(reason).splitlines()[-1]}")
    return values


def table(values: dict[str, list[float]], unit: str, budget: float) -> str:
    """Lay out one kind.

    Args:
        values: By variant.
        unit: Of the values.
        budget: What ours, native, may add to the best bare value.
    """
    bare = min(values[BARE])
    rows = []
    for variant, found in values.items():
        added = min(found) - bare
        allowed = budget if variant in WITHIN_BUDGET else None
        rows.append(
            (
                LABELS[variant],
                f"{min(found):.2f}",
                f"{statistics.median(found):.2f}",
                f"{added:+.2f}" if variant != BARE else "",
                f"{min(found) / bare:.2f} x",
                f"{allowed:+.2f}" if allowed is not None else "",
                report.mark(added, allowed),
            )
        )
    return report.table(("variant", unit, "median", "added", "of bare", "budget", ""), rows)


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    found, missing = interpreters()
    threads = values_of(
        "thread", {key: found[key] for key in THREAD_VARIANTS if key in found}, effort, missing
    )
    processes = round_trips_of({key: found[key] for key in PROCESS_VARIANTS if key in found}, effort)
    text = "\n\n".join(
        (
            "## Work items of pools",
            f"{report.machine()} · {report.versions()} · {effort.rounds} rounds, {report.load_average()}",
            CAPTION,
            table(threads, "µs CPU, ThreadPoolExecutor.submit to result", THREAD_BUDGET_US),
            round_trip_table(processes),
            *missing,
        )
    )
    return text, {"threads": threads, "processes": processes, "missing": missing}
