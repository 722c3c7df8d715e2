"""What a shutdown tells of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.signals import names, shutdown_events
from otel_concurrency.signals.shutdown_events import ShutdownReport, count_unfinished

SECOND = 1_000_000_000


class Now:
    """Monotonic and wall-clock time, ns; the one moves when told, the other stands still."""

    monotonic_ns = 5 * SECOND


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryLogRecordExporter]:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr(shutdown_events, "get_logger", provider.get_logger)
    yield exporter
    provider.shutdown()


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def report(now: Now) -> ShutdownReport:
    return ShutdownReport(clock=lambda: now.monotonic_ns, unix_clock=lambda: 70 * SECOND)


def told(exporter: InMemoryLogRecordExporter) -> list[tuple[Any, ...]]:
    records = [data.log_record for data in exporter.get_finished_logs()]
    return [(each.event_name, each.body, dict(each.attributes or {})) for each in records]


def test_a_shutdown_tells_its_start_its_progress_and_its_end(
    report: ShutdownReport, now: Now, exporter: InMemoryLogRecordExporter
) -> None:
    undo = [
        count_unfinished(names.UNFINISHED_TASKS, lambda: 4),
        count_unfinished(names.UNFINISHED_TASKS, lambda: 3),
        count_unfinished(names.UNFINISHED_WORK_ITEMS, lambda: 1 // 0),
    ]
    report.begin("SIGTERM")
    report.started()
    report.started()
    now.monotonic_ns += 2 * SECOND
    report.progress()
    for each in undo:
        each()
    now.monotonic_ns += SECOND // 2
    report.progress()
    report.completed()
    report.completed()
    why = {names.SHUTDOWN_REASON: "SIGTERM"}
    assert told(exporter) == [
        (names.SHUTDOWN_STARTED, "Shutdown started: SIGTERM", why),
        (
            names.SHUTDOWN_PROGRESS,
            "Shutdown goes on after 2.0 s, unfinished: 7 tasks, 0 work items",
            {
                **why,
                names.SHUTDOWN_ELAPSED: 2.0,
                names.UNFINISHED_TASKS: 7,
                names.UNFINISHED_WORK_ITEMS: 0,
            },
        ),
        (
            names.SHUTDOWN_PROGRESS,
            "Shutdown goes on after 2.5 s, unfinished: 0 tasks, 0 work items",
            {
                **why,
                names.SHUTDOWN_ELAPSED: 2.5,
                names.UNFINISHED_TASKS: 0,
                names.UNFINISHED_WORK_ITEMS: 0,
            },
        ),
        (names.SHUTDOWN_COMPLETED, "Shutdown completed in 2.500 s", {**why, names.SHUTDOWN_ELAPSED: 2.5}),
    ]
    (reading,) = report.collect()
    ((labels, state),) = reading.points
    assert (reading.instrument, labels) == (names.SHUTDOWN_DURATION, why)
    assert (state.count, state.sum_ns) == (1, 2 * SECOND + SECOND // 2)


def test_a_shutdown_that_nobody_was_told_of_ends_without_a_word(
    report: ShutdownReport, exporter: InMemoryLogRecordExporter
) -> None:
    report.begin("exit")
    report.completed()
    assert (told(exporter), list(report.collect())) == ([], [])


def test_a_forked_child_starts_with_nothing(
    report: ShutdownReport, exporter: InMemoryLogRecordExporter
) -> None:
    report.begin("SIGTERM")
    report.started()
    report.reset()
    report.completed()
    assert (len(told(exporter)), list(report.collect())) == (1, [])


def test_two_shutdowns_of_one_process_add_up(
    report: ShutdownReport, now: Now, exporter: InMemoryLogRecordExporter
) -> None:
    """The first process of a container survives SIGTERM."""
    states: list[HistogramState] = []
    for _ in range(2):
        report.begin("SIGTERM")
        report.started()
        now.monotonic_ns += SECOND
        report.completed()
        (reading,) = report.collect()
        states += [state for _, state in reading.points]
    assert [(state.count, state.sum_ns) for state in states] == [(1, SECOND), (2, 2 * SECOND)]
