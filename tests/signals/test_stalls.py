"""What is told of stalls: numbers, log events in the culprit's trace, and an event of its span."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.hooks.loops.stalls import Stall
from otel_concurrency.signals import names
from otel_concurrency.signals.stalls import (
    INTERVAL_NS,
    MAX_FUNCTIONS,
    SETTLED_LOOKS,
    SETTLED_NS,
    StallReports,
)
from tests.signals.conftest import ManualClock

LOOP = {"asyncio.eventloop.id": "0", "asyncio.eventloop.type": "uvloop"}
MS = 1_000_000


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryLogRecordExporter]:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr("otel_concurrency.signals.stalls.get_logger", provider.get_logger)
    yield exporter
    provider.shutdown()


def stall(**changes: Any) -> Stall:
    given: dict[str, Any] = {
        "loop_id": 0,
        "loop_type": "uvloop",
        "thread_ident": 7,
        "began_unix_ns": 5_000,
        "duration_ns": 300 * MS,
        "cause": "blocked_call",
        "function": "app.handle",
        "call": "time.sleep",
        "frames": ("a", "b", "c", "d"),
        "looks": 3,
    }
    return Stall(**given | changes)


def told(exporter: InMemoryLogRecordExporter) -> list[Any]:
    return [each.log_record for each in exporter.get_finished_logs()]


def numbers(reports: StallReports) -> list[tuple[dict[str, Any], int]]:
    [counts, durations] = reports.collect()
    assert (counts.instrument, durations.instrument) == (
        names.EVENTLOOP_STALLS,
        names.EVENTLOOP_STALL_DURATION,
    )
    return [(dict(labels), count) for labels, count in counts.points]  # type: ignore[misc]


def test_a_stall_is_counted_once_by_cause_and_function(records: InMemoryLogRecordExporter) -> None:
    reports = StallReports()
    for each in (stall(), stall(), stall(cause="gc_pause", function="")):
        reports.stall_seen(each)
        reports.stall_goes_on(each)
        reports.stall_ended(each)
    assert numbers(reports) == [
        (
            {**LOOP, "asyncio.eventloop.stall.cause": "blocked_call", "code.function.name": "app.handle"},
            2,
        ),
        ({**LOOP, "asyncio.eventloop.stall.cause": "gc_pause", "code.function.name": "_unknown"}, 1),
    ]
    [_, durations] = reports.collect()
    assert [(dict(labels), state.count, state.sum_ns) for labels, state in durations.points] == [
        ({**LOOP, "asyncio.eventloop.stall.cause": "blocked_call"}, 2, 600 * MS),
        ({**LOOP, "asyncio.eventloop.stall.cause": "gc_pause"}, 1, 300 * MS),
    ]


def test_one_that_does_not_end_is_counted_while_it_is_on(records: InMemoryLogRecordExporter) -> None:
    reports, long_one = StallReports(), stall(duration_ns=SETTLED_NS)
    reports.stall_seen(long_one)
    reports.stall_goes_on(long_one)
    assert [count for _, count in numbers(reports)] == [1]
    long_one.cause = "unknown"
    reports.stall_ended(long_one)
    assert [count for _, count in numbers(reports)] == [1]


def test_a_cause_that_cannot_be_told_yet_is_waited_for(records: InMemoryLogRecordExporter) -> None:
    reports, on = StallReports(), stall(cause="unknown")
    reports.stall_seen(on)
    reports.stall_goes_on(on)
    assert told(records) == []
    on.cause = "gil_contention"
    reports.stall_goes_on(on)
    assert [each.attributes[names.STALL_CAUSE] for each in told(records)] == ["gil_contention"]


def test_functions_are_bounded(records: InMemoryLogRecordExporter) -> None:
    reports = StallReports()
    for index in range(MAX_FUNCTIONS + 3):
        reports.stall_ended(stall(function=f"f{index}"))
    counts = [(labels["code.function.name"], count) for labels, count in numbers(reports)]
    assert (len(counts), counts[-1]) == (MAX_FUNCTIONS + 1, ("_other", 3))


def test_log_events_tell_it_in_the_trace_of_the_culprit_at_most_every_10_s(
    records: InMemoryLogRecordExporter,
) -> None:
    clock = ManualClock(now=1_000_000 * MS)
    reports = StallReports(clock=clock)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    span = tracer.start_span("request")
    origin = trace.set_span_in_context(span)
    for _ in range(3):
        reports.stall_seen(stall(origin=origin, task_name="Task-1"))
        reports.stall_ended(stall(origin=origin, task_name="Task-1"))
    clock.now += INTERVAL_NS
    reports.stall_ended(stall(origin=origin))
    started, ended, _, again = told(records)
    assert [each.event_name for each in told(records)] == [
        "asyncio.eventloop.stall.started",
        "asyncio.eventloop.stall.ended",
        "asyncio.eventloop.stall.started",
        "asyncio.eventloop.stall.ended",
    ]
    assert {each.trace_id for each in told(records)} == {span.get_span_context().trace_id}
    shared = {
        **LOOP,
        "asyncio.eventloop.stall.cause": "blocked_call",
        "asyncio.eventloop.stall.call": "time.sleep",
        "code.function.name": "app.handle",
        "code.stacktrace": "a\nb\nc\nd",
        "thread.id": 7,
    }
    assert dict(started.attributes) == shared | {"asyncio.task.name": "Task-1"}
    assert (started.timestamp, ended.timestamp) == (5_000, 5_000 + 300 * MS)
    assert dict(again.attributes) == shared | {
        "asyncio.eventloop.stall.elapsed": 0.3,
        "otel_concurrency.events.suppressed": 2,
    }


def test_a_stall_is_told_whole_or_not_at_all(records: InMemoryLogRecordExporter) -> None:
    """The second begins within the 10 s of the first, and ends beyond them."""
    clock = ManualClock(now=1_000_000 * MS)
    reports = StallReports(clock=clock)
    for took_ns in (INTERVAL_NS // 2, INTERVAL_NS * 2, INTERVAL_NS // 2):
        each = stall(duration_ns=SETTLED_NS, looks=SETTLED_LOOKS)
        reports.stall_seen(each)
        reports.stall_goes_on(each)
        clock.now += took_ns
        reports.stall_ended(each)
    assert [
        (each.event_name.rpartition(".")[2], each.attributes.get("otel_concurrency.events.suppressed"))
        for each in told(records)
    ] == [("started", None), ("ended", None), ("started", 1), ("ended", 1)]


def test_one_place_does_not_keep_another_of_the_same_function_quiet(
    records: InMemoryLogRecordExporter,
) -> None:
    reports = StallReports(clock=lambda: 1)
    for line in (10, 20, 10):
        reports.stall_ended(stall(file="app.py", line=line, looks=0))
    assert [each.attributes["code.line.number"] for each in told(records)] == [10, 20]


def test_the_culprits_span_gets_one_event_which_tells_how_long_it_took(
    records: InMemoryLogRecordExporter,
) -> None:
    reports, exporter = StallReports(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("test").start_span("request", start_time=1_000)
    each = stall(origin=trace.set_span_in_context(span), duration_ns=120 * MS)
    reports.stall_seen(each)
    each.duration_ns = 180 * MS
    reports.stall_goes_on(each)
    span.end()
    [event] = exporter.get_finished_spans()[0].events
    assert (event.name, event.timestamp) == ("asyncio.stall", 5_000)
    assert event.attributes is not None
    assert event.attributes["asyncio.eventloop.stall.elapsed"] == 0.18
    assert event.attributes["code.stacktrace"] == "a\nb\nc"
    each.duration_ns = 200 * MS
    reports.stall_ended(each)  # the span has ended, and nobody complains
    [event] = exporter.get_finished_spans()[0].events
    assert event.attributes is not None
    assert event.attributes["asyncio.eventloop.stall.elapsed"] == 0.2


def test_a_child_begins_at_nothing(records: InMemoryLogRecordExporter) -> None:
    reports = StallReports(clock=iter((1, 2, 3, 4)).__next__)
    reports.stall_ended(stall())
    reports.begin()
    assert (reports.start_unix_ns, numbers(reports)) == (4, [])
