"""The price of a request: one FastAPI endpoint, bare, under our distro and under upstream's default.

The service runs under uvicorn (uvloop, httptools, one worker) with traces, metrics and logs exported over
OTLP/HTTP to a sink on loopback. CPU is what the service's process used, all threads, exporting included,
until all that the load caused has been exported. Variants take turns, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.environments import environment
from benchmarks.server import get_json, loaded, running_service, running_sink

VARIANTS = ("bare", "ours", "upstream")
ADDED_BUDGET = 0.40
"""What ours may add to a request's CPU, as a share of what upstream's default adds."""

RATE_SHARE = 0.6
"""The open loop's rate, as a share of the slowest variant's throughput: all can sustain it."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Turns of each variant.
        warm_up_s: Load before each reading.
        closed_s: Length of the closed loop, which gives CPU and throughput.
        open_s: Length of the open loop, which gives latencies.
    """

    rounds: int
    warm_up_s: float
    closed_s: float
    open_s: float


FULL = Effort(rounds=5, warm_up_s=2.0, closed_s=6.0, open_s=6.0)
QUICK = Effort(rounds=2, warm_up_s=1.0, closed_s=3.0, open_s=3.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """One turn of one variant.

    Attributes:
        variant: `bare`, `ours` or `upstream`.
        rate: Requests per second in closed loop.
        cpu_us: CPU per request in closed loop, exporting included, µs.
        p50_ms: Median latency in open loop, ms; 0 when there was none.
        p99_ms: 99th percentile in open loop, ms; 0 when there was none.
        spans: Spans per request that arrived.
        server_spans: Server spans per request that arrived; 1.0 when none was lost or doubled.
        exported_bytes: OTLP bytes per request.
        details: The sink's report, for whoever asks what was sent.
    """

    variant: str
    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    spans: float
    server_spans: float
    exported_bytes: float
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """What stays the same over a run.

    Attributes:
        bin_folders: Where each variant is installed; looked up once, so a run sees one state of the tree.
        sink_port: Where the sink listens, on loopback.
        extra: Environment variables for the service.
    """

    bin_folders: Mapping[str, Path]
    sink_port: int
    extra: Mapping[str, str]


def turn(variant: str, effort: Effort, bench: Bench, open_rate: float) -> Reading:
    """Run the service once in a variant and take its readings."""
    sink_port = bench.sink_port
    told_port = None if variant == "bare" else sink_port
    with running_service(bench.bin_folders[variant], told_port, bench.extra) as server:
        loaded(server.port, "--seconds", str(effort.warm_up_s))
        server.get("/flush")
        get_json(sink_port, "/report")
        before = server.cpu_s()
        closed = loaded(server.port, "--seconds", str(effort.closed_s))
        server.get("/flush")
        used = server.cpu_s() - before
        arrived = get_json(sink_port, "/report")
        opened = (
            loaded(server.port, "--seconds", str(effort.open_s), "--rate", str(open_rate))
            if open_rate
            else {}
        )
    errors = closed["errors"] + opened.get("errors", 0)
    if errors:
        raise SystemExit(f"benchmarks: {errors:.0f} requests failed with {variant}")
    requests = closed["requests"]
    spans: dict[str, int] = {
        name: count for name, count in arrived["spans"].items() if not name.endswith("/flush")
    }
    return Reading(
        variant,
        closed["rate"],
        used / requests * 1e6,
        opened.get("p50_s", 0.0) * 1e3,
        opened.get("p99_s", 0.0) * 1e3,
        sum(spans.values()) / requests,
        sum(count for name, count in spans.items() if " server " in name) / requests,
        arrived.get("bytes", 0) / requests,
        {**arrived, "requests": requests},
    )


def readings(effort: Effort, rate: float, variants: Sequence[str], extra: Mapping[str, str]) -> list[Reading]:
    """Take all readings, variants in turn; a first, uncounted round finds the open loop's rate."""
    bin_folders = {variant: environment(variant) for variant in variants}
    taken: list[Reading] = []
    with running_sink() as sink_port:
        bench = Bench(bin_folders, sink_port, extra)
        if not rate:
            report.progress("request: finding a rate that all variants sustain")
            probe = Effort(rounds=1, warm_up_s=1.0, closed_s=2.0, open_s=0.0)
            slowest = min(turn(variant, probe, bench, 0.0).rate for variant in variants)
            rate = round(RATE_SHARE * slowest, -1)
        for number in range(effort.rounds):
            report.progress(
                f"request: round {number + 1} of {effort.rounds}, open loop at {rate:.0f} requests/s"
            )
            for variant in variants:
                taken.append(turn(variant, effort, bench, rate))
                report.progress(
                    f"request: {variant} {taken[-1].cpu_us:.0f} µs, p99 {taken[-1].p99_ms:.2f} ms"
                )
    return taken


@dataclass(frozen=True, slots=True)
class Summary:
    """One variant over all rounds: the best CPU and latencies, the highest rate, and what it exported."""

    variant: str
    rate: float
    cpu_us: float
    cpu_median_us: float
    p50_ms: float
    p99_ms: float
    spans: float
    server_spans: float
    exported_bytes: float


def summary(variant: str, taken: Sequence[Reading]) -> Summary:
    """Sum up one variant's turns."""
    own = [reading for reading in taken if reading.variant == variant]
    return Summary(
        variant,
        max(reading.rate for reading in own),
        min(reading.cpu_us for reading in own),
        statistics.median(reading.cpu_us for reading in own),
        min(reading.p50_ms for reading in own),
        min(reading.p99_ms for reading in own),
        statistics.median(reading.spans for reading in own),
        statistics.median(reading.server_spans for reading in own),
        statistics.median(reading.exported_bytes for reading in own),
    )


def request_table(summaries: Sequence[Summary]) -> str:
    """Lay out the table, with what each variant adds to bare."""
    bare = next(entry for entry in summaries if entry.variant == "bare")
    upstream = next((entry for entry in summaries if entry.variant == "upstream"), None)
    rows: list[tuple[str, ...]] = []
    for entry in summaries:
        added = entry.cpu_us - bare.cpu_us
        share = (
            f"{added / (upstream.cpu_us - bare.cpu_us):.0%}"
            if upstream and entry.variant not in ("bare", "upstream")
            else ""
        )
        watched = entry.variant != "bare"
        rows.append(
            (
                entry.variant,
                f"{entry.rate:,.0f}",
                f"{entry.cpu_us:.0f} µs",
                f"{entry.cpu_median_us:.0f} µs",
                f"{added:+.0f} µs" if watched else "",
                share,
                f"{entry.p50_ms:.2f} ms",
                f"{entry.p99_ms:.2f} ms",
                f"{entry.server_spans:.3f}" if watched else "",
                f"{entry.spans:.3f}" if watched else "",
                f"{entry.exported_bytes:.0f}" if watched else "",
            )
        )
    return report.table(
        (
            "variant",
            "requests/s",
            "CPU per request",
            "median",
            "added",
            "of upstream's",
            "p50",
            "p99",
            "server spans",
            "spans",
            "bytes sent",
        ),
        rows,
    )


def verdicts(summaries: Sequence[Summary]) -> str:
    """Say of each budget whether it was kept."""
    by_name = {entry.variant: entry for entry in summaries}
    if not {"bare", "ours", "upstream"} <= by_name.keys():
        return ""
    bare, ours, upstream = by_name["bare"], by_name["ours"], by_name["upstream"]
    share = (ours.cpu_us - bare.cpu_us) / (upstream.cpu_us - bare.cpu_us)
    p99s = f"ours {ours.p99_ms:.2f} ms, upstream's {upstream.p99_ms:.2f} ms"
    claims = (
        (f"added CPU is {share:.0%} of upstream's, at most {ADDED_BUDGET:.0%}", share, ADDED_BUDGET),
        (f"p99 at the same rate: {p99s}", ours.p99_ms, upstream.p99_ms),
        (f"server spans per request: {ours.server_spans:.3f}, wanted 1", abs(ours.server_spans - 1.0), 5e-4),
    )
    return "\n".join(f"- {claim}: {report.mark(value, budget)}" for claim, value, budget in claims)


def run(
    effort: Effort, rate: float = 0.0, extra: Mapping[str, str] | None = None
) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the same as data."""
    taken = readings(effort, rate, VARIANTS, extra or {})
    summaries = [summary(variant, taken) for variant in VARIANTS]
    made = f"{report.machine()} · {report.versions()} · {effort.rounds} rounds, best of each"
    parts = (
        "## A request",
        f"{made}, {report.load_average()}",
        request_table(summaries),
        verdicts(summaries),
    )
    text = "\n\n".join(parts)
    return text, {"readings": [asdict(reading) for reading in taken]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.request", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--rate", type=float, default=0.0, help="open loop's rate; found out by default")
    parser.add_argument("--logs", action="store_true", help="the endpoint also writes one log record")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every reading to this file")
    arguments = parser.parse_args()
    extra = {"BENCHMARK_LOG": "true"} if arguments.logs else {}
    text, data = run(QUICK if arguments.quick else FULL, arguments.rate, extra)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
