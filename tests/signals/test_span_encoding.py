"""Our span encoder says what upstream's says, to the last field."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from otel_concurrency.signals import span_encoding
from otel_concurrency.signals.span_encoding import SpanEncoder

ELSEWHERE = SpanContext(2**127 + 1, 2**63 + 1, is_remote=True, trace_flags=TraceFlags(1))
STATEFUL = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "b")]))


def made(
    make: Callable[[Tracer], None], limits: SpanLimits | None = None, **resource: str
) -> list[ReadableSpan]:
    """Return the spans that come out of an SDK provider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource(resource, "https://example.org/resource"), span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    make(
        provider.get_tracer(
            "scope", "1.2", schema_url="https://example.org/scope", attributes={"of": "scope"}
        )
    )
    return list(exporter.get_finished_spans())


def plain(tracer: Tracer) -> None:
    for kind in SpanKind:
        tracer.start_span("GET /work/{item}", kind=kind, attributes={"n": 200, "s": "täg"}).end()


def no_attributes(tracer: Tracer) -> None:
    tracer.start_span("").end()


def equal_values_of_different_types(tracer: Tracer) -> None:
    for value in (1, True, 1.0, "1", 0, False, 0.0, "", -1, 2**63 - 1, -(2**63)):
        tracer.start_span("n", attributes={"same": value}).end()


def compound_values(tracer: Tracer) -> None:
    tracer.start_span("n", attributes={"l": [1, 2], "s": ["a"], "b": b"\xff", "m": {"k": "v"}, "e": []}).end()


def long_values(tracer: Tracer) -> None:
    for length in (126, 127, 128, 129, 16383, 16384, 70000):
        tracer.start_span("n" * length, attributes={"k": "v" * length}).end()


def parents(tracer: Tracer) -> None:
    with tracer.start_as_current_span("parent"):
        tracer.start_span("child").end()
    tracer.start_span("far", context=set_span_in_context(NonRecordingSpan(ELSEWHERE))).end()
    tracer.start_span("stateful", context=set_span_in_context(NonRecordingSpan(STATEFUL))).end()


def events_and_links(tracer: Tracer) -> None:
    span = tracer.start_span("n", links=[Link(ELSEWHERE, {"k": 1})], attributes={"k": 1})
    span.add_event("event", {"k": "v"}, timestamp=7)
    span.record_exception(ValueError("no"))
    span.end()


def statuses(tracer: Tracer) -> None:
    for code, description in ((StatusCode.OK, None), (StatusCode.ERROR, None), (StatusCode.ERROR, "why")):
        span = tracer.start_span("n")
        span.set_status(code, description)
        span.end()


@pytest.mark.parametrize(
    "make",
    [
        plain,
        no_attributes,
        equal_values_of_different_types,
        compound_values,
        long_values,
        parents,
        events_and_links,
        statuses,
    ],
)
def test_a_span_is_told_as_upstream_tells_it(make: Callable[[Tracer], None]) -> None:
    """Field by field, on a fresh encoder and on one that has seen it all before."""
    spans = made(make, service="shop")
    encoder = SpanEncoder()
    expected = encode_spans(spans)
    first, again = encoder.encode_spans(spans), encoder.encode_spans(spans)
    assert (len(spans) > 0, first, again) == (True, expected, expected)


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        (SpanLimits(max_span_attributes=1), (1, 0, 0)),
        (SpanLimits(max_events=0), (0, 1, 0)),
        (SpanLimits(max_links=0), (0, 0, 1)),
    ],
)
def test_what_was_dropped_is_told(limits: SpanLimits, counts: tuple[int, int, int]) -> None:
    """Counts of attributes, events and links that a limit kept out are upstream's."""

    def drop_one(tracer: Tracer) -> None:
        links = [Link(ELSEWHERE)] if counts[2] else []
        span = tracer.start_span("n", attributes={"a": 1, "b": 2}, links=links)
        if counts[1]:
            span.add_event("event")
        span.end()

    spans = made(drop_one, limits)
    encoded = SpanEncoder().encode_spans(spans)
    told = encoded.resource_spans[0].scope_spans[0].spans[0]
    dropped = (told.dropped_attributes_count, told.dropped_events_count, told.dropped_links_count)
    assert (encoded, dropped) == (encode_spans(spans), counts)


def test_spans_are_grouped_by_resource_and_scope() -> None:
    """Two providers, and two tracers of one of them: as many groups as upstream makes."""
    spans = [*made(plain, service="one"), *made(plain, service="two"), *made(no_attributes, service="one")]
    assert _grouped(SpanEncoder().encode_spans(spans)) == _grouped(encode_spans(spans))


def test_a_value_that_protobuf_refuses_is_left_out_as_upstream_does(caplog: pytest.LogCaptureFixture) -> None:
    """An integer beyond 64 bits: the span arrives without it, and upstream's log record says so."""
    spans = made(lambda tracer: tracer.start_span("n", attributes={"big": 2**64, "k": 1}).end())
    with caplog.at_level(logging.ERROR):
        expected = encode_spans(spans)
        told = len(caplog.records)
        encoded = SpanEncoder().encode_spans(spans)
    attributes = encoded.resource_spans[0].scope_spans[0].spans[0].attributes
    assert (encoded, [entry.key for entry in attributes], len(caplog.records)) == (expected, ["k"], 2 * told)


def test_the_tables_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More different names and values than are kept: the tables start anew, and nothing is told wrongly."""
    monkeypatch.setattr(span_encoding, "MAX_KEPT", 10)

    def many(tracer: Tracer) -> None:
        for number in range(101):
            tracer.start_span(f"n{number}", attributes={"k": number}).end()

    spans = made(many)
    encoder = SpanEncoder()
    assert encoder.encode_spans(spans) == encode_spans(spans)
    assert repr(encoder) == "<SpanEncoder [1 attributes, 1 names]>"


def test_a_batch_is_iterated_once() -> None:
    """A batch may do something at each step of its iteration, and may be an iterator."""
    spans = made(plain)
    assert SpanEncoder().encode_spans(iter(spans)) == encode_spans(spans)


def _grouped(request: object) -> set[tuple[str, str, Sequence[str]]]:
    return {
        (str(group.resource), str(scope.scope), tuple(sorted(span.span_id.hex() for span in scope.spans)))
        for group in request.resource_spans  # type: ignore[attr-defined]
        for scope in group.scope_spans
    }
