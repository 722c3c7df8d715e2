"""What the console takes: OTLP over HTTP at a set rate, while pages ask; then lists over a million spans.

The console, receiver, store and questions, has one core of its own (on Linux); the senders have the others.
Told are what arrived of what was sent, what of it the console dropped, its CPU, memory and files, and the
longest and the median answer of each kind of question. A rate that it cannot keep shows as senders that are
late.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SPANS, LOGS, POINTS = 10_000, 2_000, 500
"""A second."""

PER_REQUEST = 500
PER_TRACE = 10
ANSWER_MS = 500.0
"""What a page may wait while the console receives."""

LIST_MS = 1_000.0
"""What a list or filter over a million spans may take."""

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        seconds: Of receiving.
        stored: Spans for the lists.
    """

    seconds: int
    stored: int


FULL = Effort(300, MILLION)
QUICK = Effort(20, 200_000)

QUESTIONS = {
    "newest traces": (
        "SELECT trace_id, min(start_ns), max(end_ns) - min(start_ns), count(*), bool_or(status = 'error') "
        "FROM spans WHERE trace_id IN (SELECT trace_id FROM spans WHERE parent_span_id IS NULL "
        "ORDER BY start_ns DESC LIMIT 100) GROUP BY trace_id"
    ),
    "slow failed traces of a service": (
        "SELECT trace_id, start_ns, end_ns - start_ns FROM spans JOIN resources USING (resource_key) "
        "WHERE service = 'shop' AND status = 'error' AND end_ns - start_ns > 500000000 "
        "ORDER BY start_ns DESC LIMIT 100"
    ),
    "attribute text": (
        "SELECT trace_id, name FROM spans WHERE attributes LIKE '%/items/777%' "
        "ORDER BY start_ns DESC LIMIT 100"
    ),
    "an attribute": (
        "SELECT trace_id, name FROM spans WHERE attributes ->> '$.\"url.path\"' = '/items/7777' "
        "ORDER BY start_ns DESC LIMIT 100"
    ),
    "one trace": (
        "SELECT * FROM spans WHERE trace_id = (SELECT trace_id FROM spans ORDER BY id DESC LIMIT 1) "
        "ORDER BY start_ns"
    ),
    "time by name": (
        "SELECT name, count(*), quantile_cont(end_ns - start_ns, [0.5, 0.95]) FROM spans GROUP BY name "
        "ORDER BY 2 DESC LIMIT 50"
    ),
    "logs by text": (
        "SELECT time_ns, body FROM logs WHERE body LIKE '%number 7%' ORDER BY time_ns DESC LIMIT 100"
    ),
    "a metric": (
        "SELECT attributes, time_ns, value FROM metric_points WHERE name = 'metric 7' ORDER BY time_ns DESC "
        "LIMIT 1000"
    ),
}


def run(effort: Effort) -> tuple[str, dict[str, Any]]:
    """Measure; return the report and its numbers."""
    with tempfile.TemporaryDirectory() as folder:
        received = _receive(effort, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        lists = _child("lists", str(effort.stored), folder)
    data = {"received": received, "lists": lists}
    sent, counts = received["sent"], received["counts"]
    lines = [
        f"console: {effort.seconds} s of {SPANS:,} spans, {LOGS:,} log records and {POINTS} points a second",
        f"  sent {sent['spans']:,} spans, {sent['logs']:,} records, {sent['metric_points']:,} points;",
        "  refused {refused}; longest request {took_s:.2f} s, senders at most {late_s:.2f} s late".format(
            **sent
        ),
        *(f"  {name:14} {json.dumps(count)}" for name, count in counts.items()),
        "  {cpu_percent:.0f} % of a core, {memory_mb:.0f} MB at most, {files_mb:.0f} MB of files".format(
            **received
        ),
        f"  answers meanwhile, ms (limit {ANSWER_MS:.0f}):           median   longest",
        *_answers(received),
        f"console: answers over {effort.stored:,} spans, ms (limit {LIST_MS:.0f}):  median   longest",
        *_answers(lists),
    ]
    return "\n".join(lines), data


def _answers(report: dict[str, Any]) -> list[str]:
    return [
        f"    {name:42}{median:10.1f}{longest:10.1f}" for name, (median, longest) in report["answers"].items()
    ]


def _receive(effort: Effort, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.console", "serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as console:
        assert console.stdout is not None
        assert console.stdin is not None
        port = int(console.stdout.readline())
        _pin(last=True)
        sent = send(port, effort.seconds)
        console.stdin.write("\n")
        console.stdin.flush()
        report: dict[str, Any] = json.loads(console.stdout.readline())
    return report | {"sent": sent}


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.console", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _pin(*, last: bool) -> None:
    with contextlib.suppress(AttributeError, OSError):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[-1:] if last else cores[:1])


# ---- the console's side


def serve(folder: Path) -> None:
    """Be the console: say the port, answer questions until told to stop, say how it was."""
    from otel_concurrency.console import Receiver, Store

    _pin(last=False)
    told_to_stop = threading.Event()
    with (
        Store(folder / "x.duckdb", max_rows=MILLION, max_bytes=2**30) as store,
        Receiver(store, http_port=0, grpc_port=0) as receiver,
    ):
        print(receiver.http_endpoint.rpartition(":")[2], flush=True)
        threading.Thread(target=lambda: (sys.stdin.readline(), told_to_stop.set()), daemon=True).start()
        began, began_cpu = time.monotonic(), time.process_time()
        took = ask(store, lambda: not told_to_stop.wait(0.5))
        cpu_percent = 100 * (time.process_time() - began_cpu) / (time.monotonic() - began)
        report = {
            "counts": {name: asdict(count) for name, count in store.counts().items()},
            "cpu_percent": cpu_percent,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "files_mb": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20,
            "answers": took,
        }
    print(json.dumps(report), flush=True)


def ask(store: Any, go_on: Any) -> dict[str, tuple[float, float]]:
    """Ask one question after the other; return the median and longest answer of each, ms."""
    took: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    while go_on():
        for name, question in QUESTIONS.items():
            began = time.perf_counter()
            store.query(question)
            took[name].append((time.perf_counter() - began) * 1e3)
    return {name: (statistics.median(times), max(times)) for name, times in took.items() if times}


def lists(stored: int, folder: Path) -> None:
    """Fill a store, and ask."""
    from otel_concurrency.console import Store
    from otel_concurrency.console.span_rows import span_batch

    _pin(last=False)
    rounds = iter(range(6))
    with Store(folder / "x.duckdb", max_rows=MILLION, max_bytes=2**31) as store:
        now = time.time_ns()
        for number in range(stored // 5_000):
            request = trace_request(5_000, now + number * 10**9)
            store.insert(span_batch(request, request.ByteSize(), 100_000))
        took = ask(store, lambda: next(rounds, None) is not None)
    print(json.dumps({"answers": took}))


# ---- the senders' side


def send(port: int, seconds: int) -> dict[str, Any]:
    """Send at the set rates for a time; return what was sent, what was refused, and how late it got."""
    sent: dict[str, Any] = {
        "spans": 0,
        "logs": 0,
        "metric_points": 0,
        "refused": 0,
        "late_s": 0.0,
        "took_s": 0.0,
    }
    kinds = (
        ("spans", "traces", trace_request, SPANS),
        ("logs", "logs", log_request, LOGS),
        ("metric_points", "metrics", point_request, POINTS),
    )

    def deliver(table: str, path: str, make: Any, rate: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        began = time.monotonic()
        while (due := began + sent[table] / rate) < began + seconds:
            late = time.monotonic() - due
            if late < 0:
                time.sleep(-late)
            sent["late_s"] = max(sent["late_s"], late)
            body = make(min(PER_REQUEST, rate), time.time_ns()).SerializeToString()
            before = time.monotonic()
            connection.request("POST", f"/v1/{path}", body, {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            answer.read()
            sent["took_s"] = max(sent["took_s"], time.monotonic() - before)
            sent[table] += min(PER_REQUEST, rate)
            sent["refused"] += answer.status != 200
        connection.close()

    threads = [threading.Thread(target=deliver, args=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent


def trace_request(count: int, end_ns: int) -> Any:
    """Return spans of a plausible service that end about now."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    scope = _of_service(request.resource_spans.add()).scope_spans.add()
    scope.scope.name = "benchmark"
    for number in range(count):
        if not number % PER_TRACE:
            trace_id, parent_id = random.randbytes(16), b""
        span_id = random.randbytes(8)
        took = int(random.expovariate(1 / 5e7))
        span = scope.spans.add(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent_id,
            name=f"GET /items/{{item}} {number % 50}",
            kind=2,
            start_time_unix_nano=end_ns - took,
            end_time_unix_nano=end_ns,
        )
        span.status.code = 2 if not number % 20 else 0
        parent_id = parent_id or span_id
        span.attributes.extend(
            _pairs(
                {
                    "http.request.method": "GET",
                    "http.route": "/items/{item}",
                    "url.path": f"/items/{random.randrange(10_000)}",
                    "request.id": random.randbytes(8).hex(),
                    "http.response.status_code": 200,
                    "server.address": "127.0.0.1",
                    "thread.id": 140_000_000,
                    "thread.name": "MainThread",
                    "concurrency.task.count": 5,
                }
            )
        )
    return request


def log_request(count: int, at_ns: int) -> Any:
    """Return log records of now."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = ExportLogsServiceRequest()
    scope = _of_service(request.resource_logs.add()).scope_logs.add()
    for number in range(count):
        record = scope.log_records.add(time_unix_nano=at_ns, severity_number=9, severity_text="INFO")
        record.trace_id, record.span_id = random.randbytes(16), random.randbytes(8)
        record.body.string_value = f"order number {number} of a customer has been taken"
        record.attributes.extend(_pairs({"code.function.name": "place_order", "code.line.number": number}))
    return request


def point_request(count: int, at_ns: int) -> Any:
    """Return data points of now, one in five a histogram's."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest()
    scope = _of_service(request.resource_metrics.add()).scope_metrics.add()
    for number in range(count):
        metric = scope.metrics.add(name=f"metric {number % 100}", unit="s")
        attributes = _pairs({"code.function.name": f"function {number}"})
        if number % 5:
            metric.sum.aggregation_temporality = 2
            metric.sum.data_points.add(time_unix_nano=at_ns, as_int=number, attributes=attributes)
        else:
            metric.exponential_histogram.aggregation_temporality = 2
            point = metric.exponential_histogram.data_points.add(
                time_unix_nano=at_ns, count=160, sum=1.0, scale=3
            )
            point.positive.bucket_counts.extend([1] * 160)
            point.attributes.extend(attributes)
    return request


def _of_service(described: Any) -> Any:
    described.resource.attributes.extend(_pairs({"service.name": "shop", "service.instance.id": "one"}))
    return described


def _pairs(attributes: dict[str, str | int]) -> Iterator[Any]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    for key, value in attributes.items():
        held = AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
        yield KeyValue(key=key, value=held)


def main() -> None:
    """Run a side of it, or with `--seconds` all of it alone."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("part", choices=["serve", "lists", "all"], default="all", nargs="?")
    parser.add_argument("given", nargs="*")
    parser.add_argument("--seconds", type=int, default=FULL.seconds)
    parser.add_argument("--stored", type=int, default=FULL.stored)
    options = parser.parse_args()
    if options.part == "serve":
        serve(Path(options.given[0]))
    elif options.part == "lists":
        lists(int(options.given[0]), Path(options.given[1]))
    else:
        print(run(Effort(options.seconds, options.stored))[0])


if __name__ == "__main__":
    main()
