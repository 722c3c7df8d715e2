"""Everything gets out of the process within one time limit, for all signals at once."""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GRPCSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HTTPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.signals import pipelines
from otel_concurrency.signals.shutdown import flush, has_unsent, prepare, shutdown

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
        self.gate, self.closed = threading.Event(), threading.Event()
        self.gate.set()

    def export(self, spans: Any) -> SpanExportResult:
        self.gate.wait()
        return super().export(spans)

    def shutdown(self) -> None:
        self.closed.set()


class SDK:
    """The three providers, with exporters that keep everything, in the place of the global ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spans, self.logs, self.metrics = Spans(), InMemoryLogRecordExporter(), Metrics()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(BatchSpanProcessor(self.spans))
        self.logger_provider = LoggerProvider()
        self.logger_provider.add_log_record_processor(BatchLogRecordProcessor(self.logs))
        self.reader = PeriodicExportingMetricReader(self.metrics)
        self.meter_provider = MeterProvider([self.reader])
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
    assert shutdown(LONG)


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


def test_a_shutdown_exports_the_rest_and_takes_nothing_new(sdk: SDK) -> None:
    sdk.record(700)
    assert shutdown(LONG)
    sdk.record()
    assert shutdown(LONG)
    assert sdk.exported() == (700, 700, [700])
    assert sdk.metrics.is_shut_down


def test_the_providers_do_not_shut_down_a_second_time(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    unregistered: list[Any] = []
    unregister = atexit.unregister
    monkeypatch.setattr(atexit, "unregister", lambda call: (unregistered.append(call), unregister(call)))
    providers = [sdk.tracer_provider, sdk.logger_provider, sdk.meter_provider]
    shutdown(LONG)
    assert unregistered == [provider.shutdown for provider in providers]
    assert not any(map(pipelines.ends_with_process, providers))


def test_a_shutdown_ends_in_time_when_an_exporter_hangs_and_the_other_signals_are_out(sdk: SDK) -> None:
    sdk.spans.gate.clear()
    sdk.record()
    began = time.monotonic()
    assert not shutdown(0.5)
    assert time.monotonic() - began < 10
    assert sdk.exported() == (0, 1, [1])


def test_an_exporter_that_retries_is_stopped_when_the_time_is_over(sdk: SDK) -> None:
    """As upstream's do: `shutdown` ends their waiting."""
    given_up = threading.Event()

    def export(spans: Any) -> SpanExportResult:
        if sdk.spans.closed.wait(LONG):
            given_up.set()
        return SpanExportResult.FAILURE

    sdk.spans.export = export  # type: ignore[method-assign]
    sdk.record()
    assert not shutdown(0.1)
    assert given_up.wait(LONG)


def test_what_is_told_at_the_end_is_exported(sdk: SDK) -> None:
    sdk.record()
    assert shutdown(LONG, tell=sdk.record)
    assert sdk.exported() == (1, 2, [2])


def test_what_is_told_at_a_flush_is_exported(sdk: SDK) -> None:
    sdk.record()
    assert flush(LONG, tell=lambda: sdk.logger.emit(body="done"))
    assert sdk.exported() == (1, 2, [1])


def test_a_provider_that_the_program_ends_itself_is_left_alone(sdk: SDK) -> None:
    sdk.tracer_provider = TracerProvider(shutdown_on_exit=False)
    sdk.tracer_provider.add_span_processor(BatchSpanProcessor(sdk.spans))
    assert shutdown(LONG)
    with sdk.tracer_provider.get_tracer("app").start_as_current_span("late"):
        pass
    sdk.tracer_provider.shutdown()
    assert [span.name for span in sdk.spans.get_finished_spans()] == ["late"]


def test_a_provider_that_was_shut_down_is_left_alone(sdk: SDK, caplog: pytest.LogCaptureFixture) -> None:
    sdk.record()
    sdk.tracer_provider.shutdown()
    sdk.meter_provider.shutdown()
    assert shutdown(LONG)
    assert sdk.exported() == (1, 1, [1])
    assert caplog.records == []


def test_processors_of_another_kind_are_called_within_the_time(sdk: SDK) -> None:
    stuck, called = threading.Event(), []

    class Stuck(SpanProcessor):
        def shutdown(self) -> None:
            stuck.wait()

    class Failing(SpanProcessor):
        def shutdown(self) -> None:
            called.append("shutdown")
            raise ValueError("no luck")

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            called.append("flush")
            raise ValueError("no luck")

    concurrent = ConcurrentMultiSpanProcessor(2)
    for processor in (Failing(), Stuck()):
        concurrent.add_span_processor(processor)
    sdk.tracer_provider.add_span_processor(concurrent)
    sdk.record()
    assert flush(LONG)
    assert not shutdown(0.5)
    assert (called, sdk.exported()) == (["flush", "shutdown"], (1, 1, [1, 1]))
    stuck.set()


def test_it_works_where_no_thread_can_be_started(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at interpreter exit since CPython 3.12; threads kept from before do what may hang."""

    def refuse(*args: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    stuck = threading.Event()
    sdk.metrics.shutdown = lambda *args, **kwargs: stuck.wait()  # type: ignore[assignment, method-assign]
    prepare()
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    sdk.record()
    assert shutdown(LONG)
    assert sdk.exported() == (1, 1, [1])
    stuck.set()


def test_an_interrupt_ends_the_wait(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk.spans.gate.clear()
    sdk.record()
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    began = time.monotonic()
    assert not shutdown(LONG)
    assert time.monotonic() - began < LONG / 2
    timer.join()


def test_what_waits_or_is_on_its_way_is_unsent(sdk: SDK) -> None:
    assert not has_unsent()
    sdk.spans.gate.clear()
    sdk.tracer.start_span("order").end()
    assert has_unsent()
    flush(0.2)
    assert has_unsent()
    sdk.spans.gate.set()
    assert flush(LONG)
    assert not has_unsent()


def test_what_waits_in_a_child_that_has_just_begun_is_its_parents(
    sdk: SDK, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal may come before the SDK has put its parts right in the child."""
    sdk.spans.gate.clear()
    sdk.tracer.start_span("order").end()
    assert has_unsent()
    parent, child = os.getpid(), os.getpid() + 1
    monkeypatch.setattr(pipelines.os, "getpid", lambda: child)
    assert not has_unsent()
    monkeypatch.setattr(pipelines.os, "getpid", lambda: parent)
    sdk.spans.gate.set()


def test_without_an_sdk_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal_name in ("tracer", "logger", "meter"):
        monkeypatch.setattr(pipelines, f"get_{signal_name}_provider", object)
    assert flush(LONG)
    assert shutdown(LONG)
    assert not has_unsent()


def test_a_flush_that_comes_in_the_middle_of_a_shutdown_sees_it_through(sdk: SDK) -> None:
    """A signal may interrupt the thread that shuts down, and end the process afterwards."""
    seen: list[object] = []

    def interrupt() -> None:
        sdk.record()
        seen.extend((flush(LONG), sdk.exported()))

    sdk.record()
    assert shutdown(LONG, tell=interrupt)
    assert seen == [True, (1, 2, [2])]
    assert sdk.exported() == (1, 2, [2])


@pytest.mark.parametrize(
    "make",
    [
        lambda endpoint: HTTPSpanExporter(endpoint=f"http://{endpoint}/v1/traces", timeout=LONG),
        lambda endpoint: GRPCSpanExporter(endpoint=f"http://{endpoint}", timeout=LONG),
    ],
    ids=["http", "grpc"],
)
def test_a_flush_that_may_not_retry_ends_with_the_first_refusal(
    sdk: SDK, make: Callable[[str], SpanExporter], caplog: pytest.LogCaptureFixture
) -> None:
    """With a port on which nobody listens, exporters try again for as long as they may."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        exporter = make(f"127.0.0.1:{bound.getsockname()[1]}")
        sdk.tracer_provider.add_span_processor(BatchSpanProcessor(exporter))
        sdk.record()
        assert not flush(0.5)
        assert flush(LONG, retry=False)
