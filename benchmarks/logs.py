"""The price of a log record as a line of JSON: a million at full speed, inside an event loop.

A file, and a pipe that nobody reads, each in processes of its own, in turn. Told are the time a record takes
the loop, the longest that one of them held it, by the clock and as the thread's CPU time, and whether every
record was written or counted as dropped. What else the machine did meanwhile shows in the longest, that of
`logging`'s own handler as well, so what counts is the round that was disturbed least.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import report

LONGEST_MS = 5.0
"""What one record may take from its event loop."""

TARGETS = ("handler", "file", "stuck pipe")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: Processes per target.
        records: Logged by each.
    """

    rounds: int
    records: int


FULL = Effort(3, 1_000_000)
QUICK = Effort(2, 100_000)


async def log_all(logger: logging.Logger, records: int) -> tuple[float, float, float]:
    """Log at full speed; return µs a record, and the longest, ms: of CPU and by the clock."""
    longest_cpu = longest = 0
    began = time.perf_counter_ns()
    for number in range(records):
        before_cpu, before = time.thread_time_ns(), time.perf_counter_ns()
        logger.info("record %d", number)
        took, took_cpu = time.perf_counter_ns() - before, time.thread_time_ns() - before_cpu
        longest, longest_cpu = max(longest, took), max(longest_cpu, took_cpu)
        if not number % 1_000:
            await asyncio.sleep(0)
    return (time.perf_counter_ns() - began) / records / 1e3, longest_cpu / 1e6, longest / 1e6


def measure(target: str, path: str, records: int) -> dict[str, Any]:
    """Measure one target in this process."""
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    from opentelemetry.sdk._logs import LoggerProvider

    from otel_concurrency.signals.log_json import JsonLogProcessor, dropped_line
    from otel_concurrency.signals.log_targets import FileTarget, StreamTarget
    from otel_concurrency.signals.log_writer import LogWriter
    from otel_concurrency.signals.logs import IdentityLogRecordProcessor

    logger = logging.Logger("benchmark")
    if target == "handler":
        logger.addHandler(logging.FileHandler(path))
        cost, longest_cpu, longest = asyncio.run(log_all(logger, records))
        return {"us": cost, "cpu_ms": longest_cpu, "ms": longest, "written": records, "dropped": 0}
    stream = StreamTarget(os.pipe()[1]) if target == "stuck pipe" else FileTarget(path)
    writer = LogWriter(stream, max_waiting=10_000, notice=dropped_line)
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(IdentityLogRecordProcessor())
    provider.add_log_record_processor(JsonLogProcessor(writer))
    logger.addHandler(LoggingHandler(logger_provider=provider))
    cost, longest_cpu, longest = asyncio.run(log_all(logger, records))
    writer.drain(time.monotonic() + 2)
    left = writer.waiting if target == "stuck pipe" else 0  # a process that ends leaves these behind
    in_file = 0
    if target == "file":
        with open(path, "rb") as lines:
            in_file = sum(b'"otel_concurrency.log.dropped"' not in line for line in lines)
        if in_file != writer.written:
            raise SystemExit(f"benchmarks: {in_file} lines in the file, {writer.written} counted")
    return {
        "us": cost,
        "cpu_ms": longest_cpu,
        "ms": longest,
        "written": writer.written,
        "dropped": writer.dropped + left,
    }


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure each target in a process of its own; return the report and the same as data."""
    rounds: dict[str, list[dict[str, Any]]] = {target: [] for target in TARGETS}
    for number in range(effort.rounds):
        for target in TARGETS:
            report.progress(
                f"logs: round {number + 1} of {effort.rounds}, {effort.records:,} records, {target}"
            )
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "benchmarks.logs", target, str(Path(folder) / "log")]
                ended = subprocess.run(
                    [*command, str(effort.records)], stdout=subprocess.PIPE, text=True, check=True
                )
            rounds[target].append(json.loads(ended.stdout))
    taken = {target: min(rounds[target], key=lambda each: each["ms"]) for target in TARGETS}
    is_exact = {
        target: all(each["written"] + each["dropped"] == effort.records for each in rounds[target])
        for target in TARGETS
    }
    rows = [
        (
            "logging's FileHandler" if target == "handler" else f"lines of JSON, {target}",
            f"{min(each['us'] for each in rounds[target]):.1f}",
            f"{each['ms']:.2f}",
            report.mark(each["ms"], None if target == "handler" else LONGEST_MS),
            f"{each['cpu_ms']:.2f}",
            " ".join(f"{each['ms']:.2f}" for each in rounds[target]),
            f"{each['written']:,}",
            f"{each['dropped']:,}",
            report.mark(not is_exact[target], 0),
        )
        for target, each in taken.items()
    ]
    header = (
        *("where to", "µs a record", "longest, ms", f"≤ {LONGEST_MS:.0f}", "of CPU", "every round's"),
        *("written", "dropped", "sum is exact"),
    )
    made = f"{effort.rounds} rounds of {effort.records:,} records, {report.load_average()}"
    parts = (
        "## A log record",
        f"{report.machine()} · {report.versions()} · {made}",
        report.table(header, rows),
    )
    return "\n\n".join(parts), {"effort": asdict(effort), "readings": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logs", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("path")
    parser.add_argument("records", type=int)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.target, arguments.path, arguments.records)), flush=True)
    os._exit(0)  # the pipe is stuck


if __name__ == "__main__":
    main()
