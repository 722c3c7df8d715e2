"""Everything gets out of the process within one time limit, for all signals at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.signals import pipelines
from otel_concurrency.signals.shutdown import flush

LONG = 30.0
"""Seconds that no healthy flush takes."""


class Metrics(MetricExporter):
    """Keeps what it is given; `on_export` is called first."""

    def __init__(self) -> None:
        super().__init__()
        self.exported: list[Any] = []
        self.is_shut_down = False
        self.on_export: Callable[[], object] = lambda: None

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.on_export()
        self.exported.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.is_shut_down = True


class Spans(InMemorySpanExporter):
    """Keeps what it is given, once `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def export(self, spans: Any) -> SpanExportResult:
        self.gate.wait()
        return super().export(spans)


class SDK:
    """The three providers, with exporters that keep everything, in the place of the global ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spans, self.logs, self.metrics = Spans(), InMemoryLogRecordExporter(), Metrics()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(BatchSpanProcessor(self.spans))
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(BatchLogRecordProcessor(self.logs))
        self.reader = PeriodicExportingMetricReader(self.metrics)
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        monkeypatch.setattr(pipelines, "get_tracer_provider", lambda: self.tracer_provider)
        monkeypatch.setattr(pipelines, "get_logger_provider", lambda: self.logger_provider)
        monkeypatch.setattr(pipelines, "get_meter_provider", lambda: self.meter_provider)
        self.counter = self.meter_provider.get_meter("app").create_counter("orders")
        self.tracer = self.tracer_provider.get_tracer("app")
        self.logger = self.logger_provider.get_logger("app")

    def record(self, number: int = 1) -> None:
        for _ in range(number):
            self.tracer.start_span("order").end()
            self.logger.emit(body="ordered")
            self.counter.add(1)

    def exported(self) -> tuple[int, int, list[int]]:
        """Count spans and log records, and read the counter of each collection."""
        collected = [
            point.value
            for data in self.metrics.exported
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]
        return len(self.spans.get_finished_spans()), len(self.logs.get_finished_logs()), collected


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SDK]:
    sdk = SDK(monkeypatch)
    yield sdk
    sdk.spans.gate.set()
    sdk.tracer_provider.shutdown()
    sdk.logger_provider.shutdown()
    sdk.meter_provider.shutdown()


@pytest.mark.parametrize("number", [1, 511, 512, 513, 1_500])
def test_a_flush_exports_what_was_recorded_and_the_process_goes_on(sdk: SDK, number: int) -> None:
    sdk.record(number)
    assert flush(LONG)
    assert sdk.exported() == (number, number, [number])
    sdk.record()
    assert flush(LONG)
    assert sdk.exported() == (number + 1, number + 1, [number, number + 1])


def test_a_flush_leaves_the_workers_at_their_own_pace(sdk: SDK) -> None:
    sdk.record()
    assert flush(LONG)
    (processor,) = sdk.tracer_provider._active_span_processor._span_processors
    assert processor._batch_processor._schedule_delay == 5.0


def test_a_flush_ends_in_time_when_an_exporter_hangs_and_the_other_signals_are_out(sdk: SDK) -> None:
    sdk.spans.gate.clear()
    sdk.record()
    began = time.monotonic()
    assert not flush(0.5)
    assert time.monotonic() - began < 10
    assert sdk.exported() == (0, 1, [1])


def test_metrics_are_collected_when_spans_are_out(sdk: SDK) -> None:
    seen: list[int] = []
    sdk.metrics.on_export = lambda: seen.append(len(sdk.spans.get_finished_spans()))
    sdk.record(600)
    assert flush(LONG)
    assert seen == [600]
