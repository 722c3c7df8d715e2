"""A Celery probe's rows as metrics, and its log event."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_concurrency.probes.celery_tasks import CeleryProbe
from otel_concurrency.signals import celery_metrics, names
from otel_concurrency.signals.celery_metrics import CeleryMetrics
from otel_concurrency.signals.readings import HistogramReading, SumReading

NAME = {"celery.task.name": "work"}


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryLogRecordExporter]:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr(celery_metrics, "get_logger", lambda *told: _logs.get_logger(*told, provider))
    yield exporter
    provider.shutdown()


def test_every_metric_comes_with_its_attributes() -> None:
    probe = CeleryProbe()
    probe.began("work", "celery", 300, 200, redelivered=True)
    probe.ended("work", "failed", "ValueError", 100)
    probe.repeated("work", "failed", 50)
    probe.retried("work")
    sums, states = {}, {}
    for reading in CeleryMetrics(probe, clock=lambda: 5).collect():
        if isinstance(reading, SumReading):
            sums[reading.instrument] = list(reading.points)
        elif isinstance(reading, HistogramReading):
            states[reading.instrument] = [(labels, state.sum_ns) for labels, state in reading.points]
    outcome = {**NAME, "celery.task.outcome": "failed"}
    assert sums == {
        names.CELERY_COMPLETED: [
            ({**NAME, "celery.task.outcome": "finished"}, 0),
            ({**outcome, "error.type": "ValueError"}, 1),
        ],
        names.CELERY_DUPLICATES: [(NAME, 1)],
        names.CELERY_REDELIVERED: [(NAME, 1)],
        names.CELERY_RETRIES: [(NAME, 1)],
    }
    assert states == {
        names.CELERY_QUEUE_DURATION: [({**NAME, "messaging.destination.name": "celery"}, 300)],
        names.CELERY_PREFETCH_DURATION: [(NAME, 200)],
        names.CELERY_DURATION: [(outcome, 150)],
    }


def test_a_message_without_a_queues_name_has_none() -> None:
    probe = CeleryProbe()
    probe.began("work", "", 300, None, redelivered=False)
    points = {each.instrument: each.points for each in CeleryMetrics(probe).collect()}
    assert [labels for labels, _ in points[names.CELERY_QUEUE_DURATION]] == [NAME]


def test_a_duplicate_is_told_once_in_a_while(exported: InMemoryLogRecordExporter) -> None:
    now = [1_000_000_000]
    metrics = CeleryMetrics(CeleryProbe(), clock=lambda: 5, monotonic_ns=lambda: now[0])
    metrics.repeated("work", "a-1", 0, "finished")
    metrics.repeated("work", "a-2", 0, "finished")
    metrics.repeated("other", "b-1", 2, "failed")
    now[0] += 10_000_000_000
    metrics.repeated("work", "a-3", 1, "finished")
    told = [
        (each.log_record.event_name, each.log_record.severity_text, dict(each.log_record.attributes or {}))
        for each in exported.get_finished_logs()
    ]
    event = ("celery.task.duplicate", "WARN")

    def attributes(name: str, task_id: str, task_try: int, outcome: str) -> dict[str, object]:
        return {
            "celery.task.name": name,
            "celery.task.id": task_id,
            "celery.task.try": task_try,
            "celery.task.outcome": outcome,
        }

    assert told == [
        (*event, attributes("work", "a-1", 0, "finished")),
        (*event, attributes("other", "b-1", 2, "failed")),
        (*event, attributes("work", "a-3", 1, "finished") | {"otel_concurrency.events.suppressed": 1}),
    ]
    assert exported.get_finished_logs()[0].log_record.body == (
        "Task work[a-1] was run again, although it had ended before: finished"
    )


def test_a_child_begins_anew() -> None:
    times = iter((5, 9))
    metrics = CeleryMetrics(CeleryProbe(), clock=lambda: next(times))
    assert metrics.start_unix_ns == 5
    metrics.begin()
    assert metrics.start_unix_ns == 9
