"""Spans of the real SDK: which thread and task they say they were started in."""

from __future__ import annotations

import _thread
import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.signals import providers
from otel_concurrency.signals.identity import Identity
from otel_concurrency.signals.spans import IdentitySpanProcessor

MAIN = {"thread.id": threading.get_ident(), "thread.name": "MainThread"}


@dataclass
class Spans:
    """A provider, and what it made."""

    limits: SpanLimits | None = None
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.provider = TracerProvider(span_limits=self.limits, shutdown_on_exit=False)
        self.processor = IdentitySpanProcessor()
        self.provider.add_span_processor(self.processor)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("app")

    def start(self, name: str = "work", attributes: Mapping[str, Any] | None = None) -> None:
        self.tracer.start_span(name, attributes=attributes).end()

    def attributes(self) -> list[dict[str, Any]]:
        return [dict(span.attributes or {}) for span in self.exporter.get_finished_spans()]


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def test_a_span_says_its_thread(spans: Spans) -> None:
    spans.start()
    thread = threading.Thread(target=spans.start, name="worker-7")
    thread.start()
    thread.join(10)
    assert spans.attributes() == [MAIN, {"thread.id": thread.ident, "thread.name": "worker-7"}]


def test_a_thread_that_threading_does_not_know_has_no_name(spans: Spans) -> None:
    done = threading.Event()
    known = threading.enumerate()
    _thread.start_new_thread(lambda: (spans.start(), done.set()), ())
    assert done.wait(10)
    (attributes,) = spans.attributes()
    assert list(attributes) == ["thread.id"]
    assert threading.enumerate() == known


def test_it_is_the_one_that_starts_the_span_and_not_the_one_that_ends_it(spans: Spans) -> None:
    span = spans.tracer.start_span("work")
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join(10)
    assert spans.attributes() == [MAIN]


def asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def uvloop_loop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()


@pytest.mark.parametrize("new_loop", [asyncio_loop, uvloop_loop])
def test_a_span_says_its_task(spans: Spans, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Each task its own; none in a plain callback."""

    async def work() -> None:
        spans.start()
        await asyncio.sleep(0)
        spans.start()

    async def main() -> None:
        await asyncio.gather(*(asyncio.create_task(work(), name=name) for name in ("one", "other")))
        called = asyncio.Event()
        asyncio.get_running_loop().call_soon(lambda: (spans.start(), called.set()))
        await called.wait()

    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    in_tasks = [{**MAIN, "asyncio.task.name": name} for name in ("one", "other", "one", "other")]
    assert spans.attributes() == [*in_tasks, MAIN]


def test_a_span_says_its_task_of_trio(spans: Spans) -> None:
    """And no longer when the run is over, nor in a worker thread."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, spans.start, name="the one that waits")
            await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)

            async def work() -> None:
                spans.start()

            nursery.start_soon(work, name="one")

    trio.run(main)
    spans.start()
    of_worker, of_task, after = spans.attributes()
    assert "asyncio.task.name" not in of_worker
    assert (of_task, after) == ({**MAIN, "asyncio.task.name": "one"}, MAIN)


def test_what_the_application_set_stays(spans: Spans) -> None:
    theirs = {"thread.id": -1, "thread.name": "theirs", "order": 5}
    spans.start(attributes=theirs)
    assert spans.attributes() == [theirs]


def test_a_full_span_loses_nothing_of_the_applications() -> None:
    spans = Spans(SpanLimits(max_span_attributes=3))
    spans.start(attributes={"a": 1, "b": 2})
    (span,) = spans.exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {"a": 1, "b": 2, "thread.id": MAIN["thread.id"]}
    assert span.dropped_attributes == 0


def test_a_length_limit_holds_for_names_too() -> None:
    spans = Spans(SpanLimits(max_span_attribute_length=4))
    spans.start()
    assert spans.attributes() == [{**MAIN, "thread.name": "Main"}]


def test_switched_off_it_says_nothing(spans: Spans) -> None:
    spans.processor.is_on = False
    spans.start()
    assert spans.attributes() == [{}]


@pytest.mark.parametrize("attributes", [None, (), "unset"])
def test_it_never_raises(attributes: object) -> None:
    span: Any = SimpleNamespace() if attributes == "unset" else SimpleNamespace(_attributes=attributes)
    IdentitySpanProcessor().on_start(span)
    assert getattr(span, "_attributes", "unset") == attributes


def test_a_task_without_a_name_keeps_no_span_back(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "_get_running_loop", lambda: 1 / 0)
        spans.start()
    spans.start()
    assert spans.attributes() == [{}, MAIN]


def test_the_processor_joins_once_and_leaves(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    own = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(providers, "get_tracer_provider", lambda: own)
    chain: Any = own._active_span_processor
    providers._identify_spans()
    providers._identify_spans()
    assert [type(each) for each in chain._span_processors] == [IdentitySpanProcessor]
    monkeypatch.setattr(providers, "get_logger_provider", object)
    providers.leave()
    assert chain._span_processors == ()


def test_the_process_is_in_the_resource() -> None:
    """One that the user has set stays."""
    provider = TracerProvider(shutdown_on_exit=False)
    user_set = TracerProvider(resource=Resource({"process.pid": 1}), shutdown_on_exit=False)
    Identity().settle(provider, user_set)
    assert provider.resource.attributes["process.pid"] == os.getpid()
    assert user_set.resource.attributes["process.pid"] == 1
