"""Cancelled spans say so, and why, where that is known; timeouts are counted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.test.globals_test import reset_trace_globals

from otel_concurrency.instrumentors.failures import FailureInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
SINCE_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="it came with CPython 3.11")


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    reset_trace_globals()
    trace.set_tracer_provider(provider)
    yield exporter
    reset_trace_globals()


@pytest.fixture
def instrumentor(exporter: InMemorySpanExporter) -> Iterator[FailureInstrumentor]:
    instrumentor = FailureInstrumentor()
    instrumentor.instrument()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


async def work(name: str = "work", duration_s: float = 60) -> None:
    with trace.get_tracer("test").start_as_current_span(name):
        await asyncio.sleep(duration_s)


async def fails() -> None:
    await asyncio.sleep(0.001)
    raise KeyError


async def waited_for() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(work(), 0.001)


async def timed_out() -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.001):  # type: ignore[attr-defined,unused-ignore]
            await work()
    await work("after", 0)


async def after_a_timeout() -> None:
    """It got over the timeout; what cancels it then is something else."""
    await timed_out()
    task: Any = asyncio.current_task()
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await work("cancelled later")
    except asyncio.CancelledError:
        task.uncancel()


async def in_a_group() -> None:
    task: Any = asyncio.current_task()
    task.set_name("parent")
    with pytest.raises(BaseException):  # noqa: B017, PT011, PT012  (ExceptionGroup came with 3.11)
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
            group.create_task(work())
            group.create_task(fails())


async def gathered() -> None:
    future = asyncio.gather(work())
    await asyncio.sleep(0)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future


async def cancelled_by_somebody() -> None:
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def cleans_up() -> None:
    """A span that somebody begins and ends while he handles a cancellation is none that was cancelled."""
    task: Any = asyncio.current_task()
    asyncio.get_running_loop().call_soon(task.cancel)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        with trace.get_tracer("test").start_as_current_span("work"):
            pass
        trace.get_tracer("test").start_span("other").end()


NOT_SAID = {"work": None, "other": None}


@pytest.mark.parametrize(
    ("main", "reasons", "by"),
    [
        (waited_for, {"work": "timeout"}, None),
        pytest.param(timed_out, {"work": "timeout", "after": None}, None, marks=SINCE_311),
        pytest.param(
            after_a_timeout,
            {"work": "timeout", "after": None, "cancelled later": "unknown"},
            None,
            marks=SINCE_311,
        ),
        pytest.param(in_a_group, {"work": "task_group"}, "parent", marks=SINCE_311),
        (gathered, {"work": "gather"}, None),
        (cancelled_by_somebody, {"work": "unknown"}, None),
        (cleans_up, NOT_SAID, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_cancelled_span_says_why(
    main: Callable[[], Awaitable[None]],
    reasons: dict[str, str | None],
    by: str | None,
    instrumentor: FailureInstrumentor,
    exporter: InMemorySpanExporter,
    loop_factory: LoopFactory,
) -> None:
    run(loop_factory, main())  # type: ignore[arg-type]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    said = {name: (span.attributes or {}).get("asyncio.cancellation.reason") for name, span in spans.items()}
    assert said == reasons
    if main is not waited_for:  # up to 3.11 it is another task that waits
        assert (spans["work"].attributes or {}).get("asyncio.cancellation.by") == by
    assert {span.status.status_code for span in spans.values()} == {trace.StatusCode.UNSET}


@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
@pytest.mark.parametrize(
    ("main", "said"),
    [
        pytest.param(in_a_group, ("task_group", "parent"), marks=SINCE_311),
        (gathered, ("gather", None)),
        (cancelled_by_somebody, ("unknown", None)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_so_does_the_span_of_a_cancelled_task(
    main: Callable[[], Awaitable[None]],
    said: tuple[str, str | None],
    native: bool,
    instrumentor: FailureInstrumentor,
    exporter: InMemorySpanExporter,
    loop_factory: LoopFactory,
) -> None:
    async def inside() -> None:
        with trace.get_tracer("test").start_as_current_span("request"):
            await main()

    tasks = AsyncioTaskInstrumentor()
    tasks.instrument(native=native)
    try:
        run(loop_factory, inside())
    finally:
        tasks.uninstrument()
    (span,) = (
        each for each in exporter.get_finished_spans() if each.name == f"asyncio.task {work.__module__}.work"
    )
    attributes = span.attributes or {}
    assert attributes["asyncio.task.outcome"] == "cancelled"
    assert (attributes.get("asyncio.cancellation.reason"), attributes.get("asyncio.cancellation.by")) == said


def test_the_end_of_run_is_a_shutdown(
    instrumentor: FailureInstrumentor, exporter: InMemorySpanExporter
) -> None:
    async def main() -> None:
        asyncio.create_task(work())  # noqa: RUF006
        await asyncio.sleep(0.001)

    asyncio.run(main())
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {"asyncio.cancellation.reason": "shutdown"}


def expired(reader: InMemoryMetricReader) -> dict[str, int]:
    data: Any = reader.get_metrics_data()
    return {
        point.attributes["code.function.name"]: point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name == "asyncio.timeout.expired"
    }


def test_timeouts_are_counted_by_who_was_cancelled(
    instrumentor: FailureInstrumentor, reader: InMemoryMetricReader, loop_factory: LoopFactory
) -> None:
    run(loop_factory, waited_for())
    who = waited_for if sys.version_info >= (3, 12) else work
    assert expired(reader) == {f"{__name__}.{who.__name__}": 1}


def test_removed_nothing_is_said(instrumentor: FailureInstrumentor, exporter: InMemorySpanExporter) -> None:
    instrumentor.uninstrument()
    run(asyncio.new_event_loop, cancelled_by_somebody())
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {}
