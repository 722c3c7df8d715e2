"""Batches leave politely, in the words of upstream's encoder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_exporter
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_exporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.signals import pipelines, span_encoding
from otel_concurrency.signals.exporting import (
    ITEMS_AT_ONCE,
    OFFER_AFTER_NS,
    PoliteBatch,
    PoliteExports,
    SpanEncoding,
)


@pytest.fixture
def encoding() -> Iterator[SpanEncoding]:
    encoding = SpanEncoding()
    yield encoding
    encoding.remove()
    assert http_exporter.encode_spans is encode_spans
    assert grpc_exporter.encode_spans is encode_spans


def made(count: int) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("scope")
    for number in range(count):
        tracer.start_span(f"span {number}", attributes={"number": number}).end()
    return list(exporter.get_finished_spans())


def test_a_polite_batch_is_its_list_and_offers_the_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offered once encoding has taken its time, and not before."""
    offered: list[float] = []
    now_ns = iter(range(0, 10**9, OFFER_AFTER_NS // 2))  # half of that time between two looks at the clock
    monkeypatch.setattr(time, "sleep", offered.append)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(now_ns))
    items = list(range(9 * ITEMS_AT_ONCE + 1))
    batch = PoliteBatch(items)
    assert (list(iter(batch)), len(batch), batch[-1], batch == items) == (items, len(items), items[-1], True)
    assert offered == [0] * 3


@pytest.fixture
def exporters(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An OTLP exporter and one of the application's behind batch processors of the global providers."""
    otlp = http_exporter.OTLPSpanExporter()
    logs = OTLPLogExporter()
    tracers, loggers = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    theirs = InMemorySpanExporter()
    tracers.add_span_processor(BatchSpanProcessor(otlp))
    tracers.add_span_processor(BatchSpanProcessor(theirs))
    loggers.add_log_record_processor(BatchLogRecordProcessor(logs))
    monkeypatch.setattr(pipelines, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(pipelines, "get_logger_provider", lambda: loggers)
    yield {"otlp": otlp, "logs": logs, "theirs": theirs}
    for each in (otlp, logs):
        monkeypatch.setattr(type(each), "export", lambda *_: SpanExportResult.SUCCESS)
    tracers.shutdown()
    loggers.shutdown()


def test_otlp_exporters_receive_polite_batches_and_others_what_they_had(
    exporters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[tuple[type, list[str]]] = []

    def seen(self: object, batch: Any) -> SpanExportResult:
        received.append((type(batch), list(batch)))
        return SpanExportResult.SUCCESS

    for name in ("otlp", "logs"):
        monkeypatch.setattr(type(exporters[name]), "export", seen)
    polite = PoliteExports()
    polite.install()
    polite.install()
    for name in ("otlp", "logs"):
        exporters[name].export([name])
    assert received == [(PoliteBatch, ["otlp"]), (PoliteBatch, ["logs"])]
    assert "export" not in vars(exporters["theirs"])

    polite.remove()
    exporters["otlp"].export(["plain"])
    assert received[2:] == [(list, ["plain"])]


def test_what_somebody_else_put_in_its_place_stays(exporters: dict[str, Any]) -> None:
    polite = PoliteExports()
    polite.install()

    def later(batch: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    exporters["otlp"].export = later
    polite.remove()
    assert exporters["otlp"].export is later


def test_both_exporters_get_our_encoder_and_upstreams_back(encoding: SpanEncoding) -> None:
    spans = made(5)
    encoding.install()
    encoding.install()
    kept = http_exporter.encode_spans
    assert kept is not encode_spans
    assert grpc_exporter.encode_spans not in (encode_spans, kept)
    assert kept(PoliteBatch(spans)) == encode_spans(spans)
    encoding.remove()
    assert http_exporter.encode_spans is encode_spans
    assert kept(spans) == encode_spans(spans)


def test_trouble_of_ours_loses_no_span(
    encoding: SpanEncoding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch goes through upstream's encoder, and so do all that follow; said once."""

    def fails(self: object, spans: object) -> bytes:
        raise LookupError("ours")

    spans = made(3)
    monkeypatch.setattr(span_encoding.SpanEncoder, "encode", fails)
    encoding.install()
    for _ in range(3):
        assert http_exporter.encode_spans(spans) == encode_spans(spans)
    assert [record.getMessage() for record in caplog.records] == [
        "Spans go through upstream's encoder from now on"
    ]
