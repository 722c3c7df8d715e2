"""What the console takes: OTLP over HTTP at a set rate, while pages ask; then lists over a million spans.

The console, receiver, store and pages, has one core of its own (on Linux); the senders have the others.
Told are what arrived of what was sent, what of it the console dropped, its CPU, memory and files, and the
median and the longest time of each page, which is made over all that is stored. A rate that it cannot keep
shows as senders that are late. What else the machine does meanwhile shows in all of it.
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

PAGES = (
    "/",
    "/findings",
    "/traces",
    "/traces?q=items/777",
    "/traces?name=GET&least=0.2&order=slowest",
    "/traces?failed=1&service=shop",
    "/timeline",
    "/tasks",
    "/resources",
    "/logs",
    "/logs?q=number 77",
    "/metrics",
    "/metrics?metric=metric 7&by=code.function.name",
    "/metrics?metric=metric 5",
    "/trace/",
)
"""Asked for over all that is stored; the last is the newest trace's."""


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
        f"  pages meanwhile, ms (limit {ANSWER_MS:.0f}):           median   longest",
        *_answers(received),
        f"console: pages over {effort.stored:,} spans, ms (limit {LIST_MS:.0f}):  median   longest",
        *_answers(lists),
    ]
    return "\n".join(lines), data


def _answers(report: dict[str, Any]) -> list[str]:
    return [
        f"    {name:50}{median:10.1f}{longest:10.1f}" for name, (median, longest) in report["answers"].items()
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
    """Make one page after the other; return the median and longest time of each, ms."""
    took: dict[str, list[float]] = {path: [] for path in PAGES}
    while go_on():
        for path in PAGES:
            began = time.perf_counter()
            make_page(store, path)
            took[path].append((time.perf_counter() - began) * 1e3)
    return {path: (statistics.median(times), max(times)) for path, times in took.items() if times}


def make_page(store: Any, path: str) -> None:
    """Make a page over all that is stored, but for the browser."""
    from otel_concurrency.console.pages.address import Address
    from otel_concurrency.console.pages.blocks import Links, Request
    from otel_concurrency.console.pages.routes import page_at

    newest = store.query("SELECT trace_id, end_ns FROM spans ORDER BY id DESC LIMIT 1")
    trace_id, to = newest[0] if newest else ("0" * 32, time.time_ns())
    if path == "/trace/":
        path += trace_id
    address = Address.parse(f"{path}{'&' if '?' in path else '?'}from={to - 3_600 * 10**9}&to={to}")
    request = Request(store, address, address.scope(to), Links("", ""), "", lambda asked: [])
    page_at(address.path)(request)


def lists(stored: int, folder: Path) -> None:
    """Fill a store, and ask."""
    from otel_concurrency.console import Store
    from otel_concurrency.console.log_rows import log_batch
    from otel_concurrency.console.point_rows import point_batch
    from otel_concurrency.console.span_rows import span_batch

    _pin(last=False)
    rounds = iter(range(3))
    with Store(folder / "x.duckdb", max_rows=MILLION, max_bytes=2**31) as store:
        now = time.time_ns()
        for number in range(stored // 5_000):
            request = trace_request(5_000, now + number * 10**9)
            store.insert(span_batch(request, request.ByteSize(), 100_000))
            if not number % 5:
                store.insert(log_batch(log_request(5_000, now + number * 10**9), 0, 100_000))
                store.insert(point_batch(point_request(1_250, now + number * 10**9), 0, 100_000))
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
