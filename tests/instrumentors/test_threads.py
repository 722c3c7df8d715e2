"""From a work item in a span to a data point with an exemplar, and the way back."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency.instrumentors import work
from otel_concurrency.instrumentors.threads import ConcurrencyThreadingInstrumentor

tracer = TracerProvider().get_tracer(__name__)


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def instrumentor(request: pytest.FixtureRequest) -> Iterator[ConcurrencyThreadingInstrumentor]:
    instrumentor = ConcurrencyThreadingInstrumentor()
    instrumentor.instrument(native=request.param, max_error_types=1)
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def points(reader: InMemoryMetricReader) -> dict[tuple[str, ...], Any]:
    """Every series of `python.executor.*`: name and attribute values to its data point."""
    data = reader.get_metrics_data()
    return {
        (metric.name.removeprefix("python.executor."), *map(str, point.attributes.values())): point
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name.startswith("python.executor.")
    }


def works() -> tuple[int, object]:
    return trace.get_current_span().get_span_context().span_id, baggage.get_baggage("who")


def fails(error: Exception) -> None:
    raise error


def test_a_work_item_is_told_in_its_submitter_s_span(
    instrumentor: ConcurrencyThreadingInstrumentor, reader: InMemoryMetricReader
) -> None:
    with tracer.start_as_current_span("request") as span, ThreadPoolExecutor(2, "files") as pool:
        token = context.attach(baggage.set_baggage("who", "me"))
        assert pool.submit(works).result() == (span.get_span_context().span_id, "me")
        context.detach(token)
        for error in (KeyError("x"), ValueError("x")):
            assert pool.submit(fails, error).exception() is error
        seen = points(reader)
    told = ("thread", "files")
    assert {key: point.value for key, point in seen.items() if hasattr(point, "value")} == {
        ("worker.count", *told, "active"): seen[("worker.count", *told, "active")].value,
        ("worker.count", *told, "idle"): seen[("worker.count", *told, "idle")].value,
        ("worker.limit", *told): 2,
        ("queue.size", *told): 0,
        ("task.submitted", *told): 3,
        ("task.completed", *told, "finished"): 1,
        ("task.completed", *told, "failed", "KeyError"): 1,
        ("task.completed", *told, "failed", "_other"): 1,
    }
    assert {key: point.count for key, point in seen.items() if hasattr(point, "count")} == {
        ("task.queue.duration", *told): 3,
        ("task.duration", *told, f"{__name__}.works"): 1,
        ("task.duration", *told, f"{__name__}.fails"): 2,
    }
    [exemplar] = seen[("task.duration", *told, f"{__name__}.works")].exemplars
    assert exemplar.span_id == span.get_span_context().span_id


def test_threads_and_callbacks_are_in_the_trace(instrumentor: ConcurrencyThreadingInstrumentor) -> None:
    seen: list[int] = []

    def look(*_: object) -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)

    future: Future[int] = Future()
    with tracer.start_as_current_span("request") as span:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        future.add_done_callback(look)
    future.set_result(1)
    assert seen == [span.get_span_context().span_id] * 2


def test_who_replaces_the_runtime_context_s_attach_hears_of_threads_and_items(
    instrumentor: ConcurrencyThreadingInstrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only then is there anything to hear: what is copied needs no call of the API's."""
    runtime, heard = context._RUNTIME_CONTEXT, []

    def put_in_place(name: str) -> None:
        original = getattr(runtime, name)

        def told(given: Any) -> Any:
            heard.append((name, threading.current_thread().name))
            return original(given)

        monkeypatch.setattr(runtime, name, told)

    def run_both() -> list[object]:
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.append(works()), name="thread")
        thread.start()
        thread.join()
        return [*seen, pool.submit(works).result()]

    with ThreadPoolExecutor(1, "pool") as pool, tracer.start_as_current_span("request") as span:
        put_in_place("detach")
        in_span = [(span.get_span_context().span_id, None)] * 2
        assert (run_both(), heard) == (in_span, [])
        put_in_place("attach")
        assert run_both() == in_span
        assert heard == [(name, of) for of in ("thread", "pool_0") for name in ("attach", "detach")]
        monkeypatch.undo()
        assert (run_both(), len(heard)) == (in_span, 4)


def test_a_failure_that_nobody_looked_at_is_counted(
    instrumentor: ConcurrencyThreadingInstrumentor, reader: InMemoryMetricReader
) -> None:
    with ThreadPoolExecutor(1, "files") as pool:
        for _ in range(3):
            pool.submit(fails, KeyError("x"))
    gc.collect()
    assert points(reader)[("task.unretrieved", "thread", "files", "KeyError")].value == 3


def test_removed_nothing_is_told_and_nothing_is_left(
    instrumentor: ConcurrencyThreadingInstrumentor, reader: InMemoryMetricReader
) -> None:
    instrumentor.uninstrument()
    with ThreadPoolExecutor(1, "files") as pool:
        pool.submit(works).result()
    assert points(reader) == {}
    assert work._shared is None


def test_all_who_count_work_share_one_probe(instrumentor: ConcurrencyThreadingInstrumentor) -> None:
    other = work.join({})
    assert instrumentor._work is not None
    assert other.probe is instrumentor._work.probe
    instrumentor.uninstrument()
    assert work._shared is not None
    other.leave()
    assert work._shared is None
