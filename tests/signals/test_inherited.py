"""The context that a process starts with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency.signals import inherited

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"TRACEPARENT": PARENT}, (TRACE, {}, {})),
        ({"TRACEPARENT": PARENT, "TRACESTATE": "a=1", "BAGGAGE": "b=2"}, (TRACE, {"a": "1"}, {"b": "2"})),
        ({"BAGGAGE": "b=2"}, ("0" * 32, {}, {"b": "2"})),
    ],
)
def test_an_environment_names_a_context(environ: Mapping[str, str], told: object) -> None:
    found = inherited.from_environment(environ)
    ids = trace.get_current_span(found).get_span_context()
    assert (trace.format_trace_id(ids.trace_id), dict(ids.trace_state), baggage.get_all(found)) == told


@pytest.mark.parametrize(
    "environ",
    [{}, {"TRACEPARENT": ""}, {"TRACEPARENT": "00-1-2-3"}, {"traceparent": PARENT}, {"TRACESTATE": "a=1"}],
)
def test_an_environment_that_names_none_is_none(environ: Mapping[str, str]) -> None:
    assert inherited.from_environment(environ) is None


@pytest.fixture
def span() -> Iterator[trace.Span]:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("span") as span:
        yield span


def test_the_span_of_a_forked_parent_is_remote_in_the_child(span: trace.Span) -> None:
    """It has the same ids, and takes nothing; whatever else is in the context stays."""
    token = context.attach(baggage.set_baggage("who", "me"))
    copied = inherited.of_forked_child()
    context.detach(token)
    seen = copied.run(trace.get_current_span)
    ids, was = seen.get_span_context(), span.get_span_context()
    assert (ids.trace_id, ids.span_id, ids.trace_flags) == (was.trace_id, was.span_id, was.trace_flags)
    assert (seen.is_recording(), ids.is_remote) == (False, True)
    assert copied.run(baggage.get_baggage, "who") == "me"
    assert trace.get_current_span() is span


def test_without_a_span_a_forked_child_goes_on_with_what_it_has() -> None:
    token = context.attach(baggage.set_baggage("who", "me"))
    copied = inherited.of_forked_child()
    context.detach(token)
    assert copied.run(baggage.get_baggage, "who") == "me"
    assert copied.run(trace.get_current_span) is trace.INVALID_SPAN
