"""What a carrier holds, and what comes out of it."""

from __future__ import annotations

import contextvars
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from otel_concurrency.signals import carriers

SPAN = SpanContext(0xA, 0xB, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")]))
TRACEPARENT = "00-0000000000000000000000000000000a-000000000000000b-01"


@pytest.fixture
def inside_a_span() -> Iterator[None]:
    current = trace.set_span_in_context(NonRecordingSpan(SPAN), baggage.set_baggage("who", "me"))
    token = context.attach(current)
    yield
    context.detach(token)


def test_outside_a_span_there_is_nothing_to_carry() -> None:
    assert carriers.capture() == {}


@pytest.mark.usefixtures("inside_a_span")
def test_span_and_baggage_are_carried_as_headers() -> None:
    assert carriers.capture() == {"traceparent": TRACEPARENT, "tracestate": "k=v", "baggage": "who=me"}


@pytest.mark.usefixtures("inside_a_span")
def test_what_was_captured_is_restored() -> None:
    carrier = carriers.capture()
    restored = contextvars.Context().run(carriers.restore, carrier)
    span = restored.run(trace.get_current_span).get_span_context()
    assert (span.trace_id, span.span_id, span.trace_flags, dict(span.trace_state)) == (
        0xA,
        0xB,
        1,
        {"k": "v"},
    )
    assert span.is_remote
    assert restored.run(baggage.get_all) == {"who": "me"}


@pytest.mark.usefixtures("inside_a_span")
def test_restoring_leaves_the_current_context_alone_and_keeps_other_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("kept")
    restored = carriers.restore({"traceparent": TRACEPARENT.replace("b-", "c-")})
    assert restored.run(variable.get) == "kept"
    assert restored.run(trace.get_current_span).get_span_context().span_id == 0xC
    assert trace.get_current_span().get_span_context() == SPAN


@pytest.mark.usefixtures("inside_a_span")
def test_an_empty_carrier_hides_the_span_that_a_worker_was_made_in() -> None:
    restored = carriers.restore({})
    assert not restored.run(trace.get_current_span).get_span_context().is_valid
    assert restored.run(baggage.get_all) == {}


@pytest.mark.usefixtures("inside_a_span")
def test_each_question_has_its_own_answer() -> None:
    """Also right after another one, and when somebody has changed what they were given."""
    first = carriers.capture()
    first["traceparent"] = "changed"
    token = context.attach(baggage.set_baggage("who", "you"))
    second = carriers.capture()
    context.detach(token)
    third = carriers.capture()
    assert [second["baggage"], third["baggage"], third["traceparent"]] == ["who=you", "who=me", TRACEPARENT]
    asked = (third, third | {"baggage": "who=they"}, third)
    assert [baggage.get_all(carriers.extract(each)) for each in asked] == [
        {"who": "me"},
        {"who": "they"},
        {"who": "me"},
    ]


@pytest.mark.usefixtures("inside_a_span")
def test_no_context_is_kept_alive() -> None:
    gone = weakref.ref(context.get_current())
    carriers.capture()
    token = context.attach(context.Context())
    assert carriers.capture() == {}
    context.detach(token)
    kept = opentelemetry_context_of_a_moment()
    assert kept() is None
    assert gone() is not None


def opentelemetry_context_of_a_moment() -> weakref.ref[context.Context]:
    token = context.attach(baggage.set_baggage("for", "a moment"))
    reference = weakref.ref(context.get_current())
    assert carriers.capture()["baggage"].endswith("moment")
    context.detach(token)
    return reference


class Broken(TextMapPropagator):
    fields = set()

    def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
        carrier["before"] = "it broke"
        raise RuntimeError("broken")

    def extract(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")


@pytest.mark.usefixtures("inside_a_span")
def test_a_broken_propagator_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(carriers, "_told", False)
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Broken())
    with caplog.at_level(logging.ERROR):
        assert carriers.capture() == {"before": "it broke"}
        restored = carriers.restore({"traceparent": TRACEPARENT})
    propagate.set_global_textmap(before)
    assert not restored.run(trace.get_current_span).get_span_context().is_valid
    assert [record.name for record in caplog.records] == [carriers.__name__]
