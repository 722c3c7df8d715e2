"""The context and the span of a work item in a worker process."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextvars import Token
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.crossing import End
from otel_concurrency.signals import current_context, late_span, process_items
from otel_concurrency.signals.process_items import NS, ProcessItems

SAMPLED = {"traceparent": "00-0000000000000000000000000000000a-000000000000000b-01", "baggage": "who=me"}
UNSAMPLED = {"traceparent": "00-0000000000000000000000000000000a-000000000000000b-00"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def items(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessItems]:
    items = ProcessItems()
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    items.tracer = provider.get_tracer("test")
    before = context.get_current()
    yield items
    assert context.get_current() == before
    provider.shutdown()


def begin(items: ProcessItems, carrier: dict[str, str], function: Any = len) -> End | None:
    return items(function, ("ab",), carrier, "pool", "process", 1_500_000_000)


def finish(end: End, error: BaseException | None = None, stacktrace: str | None = None) -> Any:
    """End an item as its worker does, and return what is left for when its result is out."""
    if isinstance(end, tuple):
        token, ended = end
        context.detach(token)
        return functools.partial(ended, error, stacktrace, process_items.time.time_ns())
    if isinstance(end, Token):
        context.detach(end)
        return None
    return end(error, stacktrace)


def current() -> tuple[int, int]:
    return current_of(trace.get_current_span())


def current_of(span: trace.Span) -> tuple[int, int]:
    ids = span.get_span_context()
    return ids.trace_id, ids.span_id


def test_an_item_in_a_sampled_span_gets_one_of_its_own(
    items: ProcessItems, exporter: InMemorySpanExporter
) -> None:
    end = begin(items, SAMPLED)
    assert end is not None
    inside = current()
    assert baggage.get_all() == {"who": "me"}
    late = finish(end)
    assert exporter.get_finished_spans() == ()
    assert trace.get_current_span() is trace.INVALID_SPAN
    late()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert inside == (span.context.trace_id, span.context.span_id)
    assert (span.name, span.kind, span.parent.span_id, span.context.trace_id) == (
        "len",
        SpanKind.CONSUMER,
        0xB,
        0xA,
    )
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "code.function.name": "len",
        "python.executor.name": "pool",
        "python.executor.type": "process",
        "python.executor.task.queue.time": 1.5,
    }


def test_an_item_that_tells_nothing_gets_none(items: ProcessItems, exporter: InMemorySpanExporter) -> None:
    end = begin(items, SAMPLED)
    assert end is not None
    span = trace.get_current_span()
    finish(end)()
    # Who has kept it sees the one above from now on, and makes none.
    assert current_of(span) == (0xA, 0xB)
    span.set_attribute("late", True)
    assert not span.is_recording()
    assert exporter.get_finished_spans() == ()


def test_items_of_one_submitter_begin_alike(items: ProcessItems, exporter: InMemorySpanExporter) -> None:
    """From the third on, the native crossing does what is done here."""
    troubles: list[Exception] = []
    crossing = make_work_probe().crossing(items, troubles.append, context_var=current_context._variable)
    for number in range(4):
        carrier = {**SAMPLED, "baggage": "who=you"} if number == 3 else dict(SAMPLED)
        crossing.begin(number, (carrier, time.monotonic_ns() - NS, f"pool {number}"), "process", len, ("ab",))
        assert baggage.get_all() == {"who": "you" if number == 3 else "me"}
        assert isinstance(trace.get_current_span(), ReadableSpan)
        trace.get_current_span().set_attribute("number", number)
        assert crossing.end(number, None, None) is not None
        assert trace.get_current_span() is trace.INVALID_SPAN
        crossing.finish()
    spans = exporter.get_finished_spans()
    told = [dict(span.attributes or {}) for span in spans]
    assert all(float(each.pop("python.executor.task.queue.time")) >= 1 for each in told)  # type: ignore[arg-type]
    assert told == [
        {
            "code.function.name": "len",
            "python.executor.name": f"pool {number}",
            "python.executor.type": "process",
            "number": number,
        }
        for number in range(4)
    ]
    assert {span.parent.span_id for span in spans if span.parent is not None} == {0xB}
    assert [span.start_time for span in spans] == sorted(span.start_time or 0 for span in spans)
    assert troubles == []


@pytest.mark.parametrize("what", ["provider", "propagator", "fork"])
def test_items_of_one_submitter_begin_otherwise_where_something_has_changed(
    items: ProcessItems, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    crossing = make_work_probe().crossing(items, print, context_var=current_context._variable)

    def run() -> trace.Span:
        crossing.begin(1, (dict(SAMPLED), time.monotonic_ns(), "pool"), "process", len, ("ab",))
        span = trace.get_current_span()
        span.set_attribute("a", 1)
        crossing.end(1, None, None)
        crossing.finish()
        return span

    for _ in range(3):
        run()
    assert len(exporter.get_finished_spans()) == 3
    if what == "provider":
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    elif what == "propagator":
        monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", CompositePropagator([]))
    else:
        monkeypatch.setattr(late_span, "forks", late_span.forks)
        late_span.count_fork()
    run()
    assert len(exporter.get_finished_spans()) == (4 if what == "fork" else 3)


def test_a_slow_one_gets_one_from_its_true_begin_to_its_true_end(
    items: ProcessItems, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([1_000, 100_001_000, 5 * NS])
    monkeypatch.setattr("otel_concurrency.signals.process_items.time.time_ns", lambda: next(now))
    end = begin(items, SAMPLED)
    assert end is not None
    finish(end)()
    (span,) = exporter.get_finished_spans()
    assert (span.start_time, span.end_time) == (1_000, 100_001_000)


def test_with_a_threshold_of_zero_each_gets_one(items: ProcessItems, exporter: InMemorySpanExporter) -> None:
    items.threshold_ns = 0
    end = begin(items, SAMPLED)
    assert end is not None
    finish(end)()
    assert [span.name for span in exporter.get_finished_spans()] == ["len"]


def test_a_failure_is_on_the_span_with_the_workers_traceback(
    items: ProcessItems, exporter: InMemorySpanExporter
) -> None:
    end = begin(items, SAMPLED)
    assert end is not None
    finish(end, KeyError("lost"), "Traceback …")()
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "KeyError: 'lost'")
    assert (span.attributes or {})["error.type"] == "KeyError"
    (event,) = span.events
    assert dict(event.attributes or {}) == {
        "exception.type": "KeyError",
        "exception.message": "'lost'",
        "exception.stacktrace": "Traceback …",
        "exception.escaped": "False",
    }


@pytest.mark.parametrize("carrier", [UNSAMPLED, SAMPLED])
def test_without_a_sampled_span_or_switched_off_the_item_sees_its_submitters(
    items: ProcessItems, exporter: InMemorySpanExporter, carrier: dict[str, str]
) -> None:
    items._spans = carrier is UNSAMPLED
    end = begin(items, carrier)
    assert end is not None
    assert current() == (0xA, 0xB)
    assert finish(end) is None
    assert exporter.get_finished_spans() == ()


def test_an_item_with_nothing_to_carry_costs_nothing(items: ProcessItems) -> None:
    assert begin(items, {}) is None


def test_an_item_with_nothing_to_carry_does_not_see_the_span_that_its_worker_was_made_in(
    items: ProcessItems,
) -> None:
    token = context.attach(baggage.set_baggage("made", "inside"))
    end = begin(items, {})
    assert end is not None
    assert baggage.get_all() == {}
    assert finish(end) is None
    assert baggage.get_all() == {"made": "inside"}
    context.detach(token)


def test_a_function_of_a_spawned_main_module_keeps_the_submitters_name(
    items: ProcessItems, exporter: InMemorySpanExporter
) -> None:
    def work() -> None:
        pass

    work.__module__, work.__qualname__ = "__mp_main__", "work"
    end = begin(items, SAMPLED, work)
    assert end is not None
    trace.get_current_span().set_attribute("written", True)
    finish(end)()
    assert [span.name for span in exporter.get_finished_spans()] == ["__main__.work"]


def test_without_a_tracer_provider_nobody_makes_a_span(
    items: ProcessItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    end = begin(items, SAMPLED)
    assert end is not None
    assert current() == (0xA, 0xB)
    assert finish(end) is None


def test_with_another_runtime_context_an_item_gets_its_span_all_the_same(
    items: ProcessItems, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crossing knows nothing of that one's tokens."""
    monkeypatch.setattr(process_items, "is_default", False)
    end = begin(items, SAMPLED)
    assert callable(end)
    inside = current()
    late = finish(end, KeyError("lost"))
    assert trace.get_current_span() is trace.INVALID_SPAN
    late()
    (span,) = exporter.get_finished_spans()
    assert (inside, (span.attributes or {})["error.type"]) == (
        current_of(trace.NonRecordingSpan(span.get_span_context())),
        "KeyError",
    )
