"""Which local root a span belongs to, and when that one has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, set_span_in_context

from otel_concurrency.signals import local_roots
from otel_concurrency.signals.local_roots import LocalRoots, root_ended_unix_ns


@pytest.fixture
def tracer() -> Iterator[trace.Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(LocalRoots())
    yield provider.get_tracer("test")
    provider.shutdown()


def under(tracer: trace.Tracer, parent: Span) -> Span:
    return tracer.start_span("inner", set_span_in_context(parent))


def test_a_span_belongs_to_the_root_of_its_trace(tracer: trace.Tracer) -> None:
    root = tracer.start_span("root")
    inner = under(tracer, under(tracer, root))
    inner.end(5)
    assert root_ended_unix_ns(inner) is None
    root.end(7)
    assert [root_ended_unix_ns(span) for span in (root, inner)] == [7, 7]


def test_a_span_with_a_remote_parent_is_a_root(tracer: trace.Tracer) -> None:
    remote = NonRecordingSpan(SpanContext(1, 2, True, TraceFlags(TraceFlags.SAMPLED)))
    root = under(tracer, remote)
    inner = under(tracer, root)
    inner.end(5)
    root.end(7)
    assert [root_ended_unix_ns(span) for span in (root, inner)] == [7, 7]


def test_in_a_trace_that_comes_back_the_outer_root_counts(tracer: trace.Tracer) -> None:
    """As of a service that calls itself: the trace passes through it twice."""
    outer = tracer.start_span("outer")
    ids = outer.get_span_context()
    again = NonRecordingSpan(SpanContext(ids.trace_id, ids.span_id, True, ids.trace_flags))
    second = under(tracer, again)
    second.end(3)
    inner = under(tracer, outer)
    inner.end(5)
    assert root_ended_unix_ns(inner) is None
    outer.end(7)
    assert [root_ended_unix_ns(span) for span in (inner, second)] == [7, 3]


def test_a_span_whose_root_is_not_known_is_asked_itself(
    tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_roots, "MAX_OPEN", 1)
    first = tracer.start_span("first")
    second = tracer.start_span("second")
    of_first, of_second = under(tracer, first), under(tracer, second)
    of_first.end(5)
    of_second.end(5)
    assert [root_ended_unix_ns(span) for span in (of_first, of_second)] == [5, None]
    assert root_ended_unix_ns(NonRecordingSpan(first.get_span_context())) is None
