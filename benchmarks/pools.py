"""The price of a pool's work item, side by side: bare, ours native, ours pure, upstream, Logfire, ddtrace.

Every value comes from a process of its own, and the variants take turns, as in `benchmarks.tasks`. Upstream,
Logfire and ddtrace carry the context and nothing else; ours also keeps queue time, run time and outcome. All
but bare run inside a recording span, where the label says nothing else: then there is a context to carry.
"""

from __future__ import annotations

import json
import os
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
    "pure": "ours, pure",
    "upstream": "upstream",
    "logfire": "Logfire",
    "ddtrace": "ddtrace",
}
NEEDS = {
    "native": "otel_concurrency.probes._native",
    "native_no_span": "otel_concurrency.probes._native",
    "upstream": "opentelemetry.instrumentation.threading",
}
PEERS = ("logfire", "ddtrace")
THREAD_BUDGET_US = 1.5
"""What a work item of a thread pool may cost on top of a bare one."""

PROCESS_BUDGET = 0.10
"""What a round trip through a process pool may cost on top of a bare one, as a share of it."""

CAPTION = (
    "Bare runs outside any span; all others inside a recording one, where they do not say `no span`. Worker"
    " processes have no tracer provider, so they make no spans."
)

NATIVE = ("native", "native_no_span")
PROCESS_VARIANTS = (BARE, *NATIVE)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Values per cell.
        seconds: How long one value is read.
    """

    rounds: int
    seconds: float


FULL = Effort(rounds=7, seconds=0.7)
QUICK = Effort(rounds=2, seconds=0.3)


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


def measured(interpreter: str, variant: str, kind: str, seconds: float) -> float:
    """Measure one value in a fresh process.

    Raises:
        InstallError: That process failed; the end of what it wrote is in the message.
    """
    command = [
        interpreter,
        str(Path("benchmarks") / "pool_item.py"),
        *(variant, kind, "--seconds", str(seconds)),
    ]
    environment = {
        **os.environ,
        "DD_TRACE_STARTUP_LOGS": "false",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(f"{LABELS[variant]} failed:\n{done.stderr.strip()[-500:]}")
    value: float = json.loads(done.stdout.splitlines()[-1])["value"]
    return value


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
        budget: What ours, native, may add to the best bare value, inside a span or not.
    """
    bare = min(values[BARE])
    rows = []
    for variant, found in values.items():
        added = min(found) - bare
        allowed = budget if variant in NATIVE else None
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
        "thread", {key: found[key] for key in found if key != "native_no_span"}, effort, missing
    )
    processes = values_of(
        "process", {key: found[key] for key in PROCESS_VARIANTS if key in found}, effort, missing
    )
    text = "\n\n".join(
        (
            "## Work items of pools",
            f"{report.machine()} · {report.versions()} · {effort.rounds} rounds, {report.load_average()}",
            CAPTION,
            table(threads, "µs CPU, ThreadPoolExecutor.submit to result", THREAD_BUDGET_US),
            table(processes, "µs, ProcessPoolExecutor round trip", PROCESS_BUDGET * min(processes[BARE])),
            *missing,
        )
    )
    return text, {"threads": threads, "processes": processes, "missing": missing}
