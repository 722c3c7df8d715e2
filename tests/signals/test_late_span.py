"""A span that whoever needs it has made, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from otel_concurrency.signals import late_span
from otel_concurrency.signals.late_span import LateSpan
from otel_concurrency.signals.stand_in import seen_ids

ABOVE = SpanContext(0xA, 0xB, is_remote=True, trace_flags=TraceFlags(1))


class Starts:
    """Starts spans of the SDK, and keeps them."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.spans: list[trace.Span] = []

    def __call__(self) -> trace.Span:
        above = trace.set_span_in_context(trace.NonRecordingSpan(ABOVE))
        self.spans.append(self.provider.get_tracer("test").start_span("work", above, start_time=7))
        return self.spans[-1]


class Work(LateSpan):
    """What gets a span of those."""

    def __init__(self, starts: Starts) -> None:
        super().__init__(ABOVE)
        self.start = starts  # type: ignore[method-assign]

    def start(self) -> trace.Span:
        raise NotImplementedError


@pytest.fixture
def starts() -> Iterator[Starts]:
    starts = Starts()
    yield starts
    starts.provider.shutdown()


NEEDS: dict[str, Callable[[LateSpan], object]] = {
    "ids": lambda span: span.get_span_context(),
    "attribute": lambda span: span.set_attribute("a", 1),
    "attributes": lambda span: span.set_attributes({"a": 1}),
    "event": lambda span: span.add_event("e"),
    "link": lambda span: span.add_link(ABOVE),
    "name": lambda span: span.update_name("other"),
    "status": lambda span: span.set_status(Status(StatusCode.ERROR)),
    "exception": lambda span: span.record_exception(ValueError("x")),
    "recording": lambda span: span.is_recording(),
    "end": lambda span: span.end(),
    "what the SDK's have": lambda span: span.start_time,
}


@pytest.mark.parametrize("need", NEEDS.values(), ids=NEEDS)
def test_it_is_made_once_by_whoever_needs_it(starts: Starts, need: Callable[[LateSpan], object]) -> None:
    span = Work(starts)
    assert starts.spans == []
    need(span)
    need(span)
    assert len(starts.spans) == 1
    assert span.get_span_context() is starts.spans[0].get_span_context()
    assert span.close() is starts.spans[0]


@pytest.mark.parametrize("need", NEEDS.values(), ids=NEEDS)
def test_when_the_work_is_over_it_is_the_one_above(
    starts: Starts, need: Callable[[LateSpan], object]
) -> None:
    span = Work(starts)
    assert span.close() is None
    if need is not NEEDS["what the SDK's have"]:
        need(span)
    assert starts.spans == []
    assert span.get_span_context() is ABOVE


def test_what_is_written_is_on_the_span(starts: Starts) -> None:
    span = Work(starts)
    span.set_attribute("a", 1)
    span.update_name("other")
    span.add_event("e")
    span.set_status(Status(StatusCode.ERROR, "why"))
    (made,) = starts.spans
    assert isinstance(made, ReadableSpan)
    assert (made.name, dict(made.attributes or {}), [event.name for event in made.events]) == (
        "other",
        {"a": 1},
        ["e"],
    )
    assert (made.status.status_code, made.status.description, made.start_time) == (StatusCode.ERROR, "why", 7)


def test_looking_makes_none(starts: Starts) -> None:
    span = Work(starts)
    assert isinstance(span, ReadableSpan)
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        meters.get_meter("test").create_counter("n").add(1)
        reader.get_metrics_data()
    assert isinstance(trace.get_current_span(), trace.Span)
    assert repr(span) == "<LateSpan, not made>"
    assert seen_ids(span) is ABOVE
    assert starts.spans == []
    span.make()
    assert seen_ids(span) is starts.spans[0].get_span_context()
    meters.shutdown()


def test_a_forked_child_makes_none(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    span = Work(starts)
    monkeypatch.setattr(late_span, "forks", late_span.forks)
    late_span.count_fork()
    assert span.get_span_context() is ABOVE
    assert starts.spans == []
