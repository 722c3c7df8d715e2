"""Cancelled spans on trio say so, and why; its deadlines are counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.instrumentors.failures import FailureInstrumentor
from tests.instrumentors.test_cancellations import expired, exporter, instrumentor

__all__ = ["exporter", "instrumentor"]

pytestmark = pytest.mark.skipif(
    not hasattr(trio.Cancelled, "source"), reason="trio says why it cancels since 0.31"
)


async def work(name: str = "work") -> None:
    with trace.get_tracer("test").start_as_current_span(name):
        await trio.sleep_forever()


async def fails() -> None:
    raise KeyError


async def moved_on() -> None:
    with trio.move_on_after(0.001):
        await work()


async def too_slow() -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.001):
        await work()


async def too_late_already() -> None:
    with trio.CancelScope(deadline=trio.current_time() - 1):
        await work()


async def of_many() -> None:
    """The task that has the deadline counts, not its children, and they are told, too."""
    with trio.move_on_after(0.001):
        async with trio.open_nursery() as nursery, trio.open_nursery() as inner:
            nursery.start_soon(work, "child")
            inner.start_soon(work, "grandchild")
            await work()


async def in_a_nursery() -> None:
    with pytest.raises(BaseException):  # noqa: B017, PT011, PT012  (the group)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(fails, name="who fails")


async def cancelled_by_somebody() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def at_the_end() -> None:
    trio.lowlevel.spawn_system_task(work)
    await trio.testing.wait_all_tasks_blocked()


async def cleans_up() -> None:
    """A span that somebody begins and ends while he handles a cancellation is none that was cancelled."""
    with trio.move_on_after(0.001):
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            with trace.get_tracer("test").start_as_current_span("work"):
                pass
            raise


@pytest.mark.parametrize(
    ("main", "said", "expirations"),
    [
        (moved_on, {"work": ("timeout", None)}, 1),
        (too_slow, {"work": ("timeout", None)}, 1),
        (too_late_already, {"work": ("timeout", None)}, 1),
        (of_many, dict.fromkeys(("work", "child", "grandchild"), ("timeout", None)), 1),
        (in_a_nursery, {"work": ("task_group", "who fails")}, 0),
        (cancelled_by_somebody, {"work": ("unknown", f"{__name__}.cancelled_by_somebody")}, 0),
        (at_the_end, {"work": ("shutdown", None)}, 0),
        (cleans_up, {"work": (None, None)}, 1),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_cancelled_span_says_why_and_deadlines_count(
    main: Callable[[], Awaitable[None]],
    said: dict[str, tuple[str | None, str | None]],
    expirations: int,
    instrumentor: FailureInstrumentor,
    exporter: InMemorySpanExporter,
    reader: InMemoryMetricReader,
) -> None:
    trio.run(main)
    spans = exporter.get_finished_spans()
    attributes: dict[str, Any] = {span.name: span.attributes or {} for span in spans}
    assert {
        name: tuple(told.get(f"asyncio.cancellation.{key}") for key in ("reason", "by"))
        for name, told in attributes.items()
    } == said
    assert {span.status.status_code for span in spans} == {trace.StatusCode.UNSET}
    assert expired(reader) == ({f"{__name__}.{main.__name__}": expirations} if expirations else {})


def test_removed_nothing_is_said(
    instrumentor: FailureInstrumentor,
    exporter: InMemorySpanExporter,
) -> None:
    instrumentor.uninstrument()
    trio.run(moved_on)
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {}
