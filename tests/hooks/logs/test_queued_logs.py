"""Log records that pass through a queue: whose context they are emitted in."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import logging.handlers
import os
import pickle
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency.hooks.logs.queued_logs import QueuedLogHook
from otel_concurrency.signals import logs

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("app")
Told = tuple[int, dict[str, Any]]


class Sides:
    """A logger that queues, and a handler of upstream's at the other end."""

    def __init__(self) -> None:
        self.exporter = InMemoryLogRecordExporter()
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(logs.IdentityLogRecordProcessor())
        provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        self.handler = LoggingHandler(logger_provider=provider)
        self.queue: queue.Queue[Any] = queue.Queue()
        self.logger = logging.Logger("app")
        self.logger.addHandler(logging.handlers.QueueHandler(self.queue))

    def listen(self) -> None:
        """Hand over what is queued, in a thread of the standard library's."""
        listener = logging.handlers.QueueListener(self.queue, self.handler)
        listener.start()
        listener.stop()

    def told(self) -> list[Told]:
        """The span id and the attributes of each record."""
        records = [each.log_record for each in self.exporter.get_finished_logs()]
        return [(each.span_id or 0, dict(each.attributes or {})) for each in records]


@pytest.fixture
def hook() -> Iterator[QueuedLogHook]:
    hook = QueuedLogHook(logs.here, logs.told_by)
    hook.install()
    yield hook
    hook.remove()


@pytest.fixture
def sides() -> Sides:
    return Sides()


MAIN = {"thread.id": threading.get_ident(), "thread.name": "MainThread", "process.pid": os.getpid()}


async def log_in_a_task(sides: Sides) -> int:
    """Log once, inside a span, in a task by the name of `packing`; return the span's id."""

    async def work() -> int:
        with TRACER.start_as_current_span("work") as span:
            sides.logger.warning("hello %s", "you")
            return span.get_span_context().span_id

    return await asyncio.create_task(work(), name="packing")


@pytest.mark.usefixtures("hook")
def test_a_listener_emits_in_the_context_of_the_place_that_logged(sides: Sides) -> None:
    span_id = asyncio.run(log_in_a_task(sides))
    sides.listen()
    assert sides.told() == [(span_id, {**MAIN, "asyncio.task.name": "packing"})]
    assert [each.log_record.body for each in sides.exporter.get_finished_logs()] == ["hello you"]


def test_without_the_hook_it_is_the_listeners(sides: Sides) -> None:
    asyncio.run(log_in_a_task(sides))
    sides.listen()
    ((span_id, attributes),) = sides.told()
    assert span_id == 0
    assert attributes["thread.name"] != "MainThread"


@pytest.mark.usefixtures("hook")
def test_a_listener_in_the_same_thread_is_no_exception(sides: Sides) -> None:
    """As one that an event loop runs between its other callbacks."""
    span_id = asyncio.run(log_in_a_task(sides))
    with TRACER.start_as_current_span("another"):
        before = context.get_current()
        sides.handler.handle(sides.queue.get())
        assert context.get_current() is before
    assert sides.told() == [(span_id, {**MAIN, "asyncio.task.name": "packing"})]


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize("overridden", ["prepare", "enqueue"])
def test_a_handler_with_a_method_of_its_own_is_covered(sides: Sides, overridden: str) -> None:
    class Own(logging.handlers.QueueHandler):
        pass

    def prepare(self: Own, record: logging.LogRecord) -> Any:
        return copy.copy(record)

    def enqueue(self: Own, record: logging.LogRecord) -> None:
        self.queue.put(record)

    setattr(Own, overridden, {"prepare": prepare, "enqueue": enqueue}[overridden])
    sides.logger.handlers = [Own(sides.queue)]
    span_id = asyncio.run(log_in_a_task(sides))
    sides.listen()
    assert sides.told() == [(span_id, {**MAIN, "asyncio.task.name": "packing"})]


@pytest.mark.usefixtures("hook")
def test_a_pickled_record_tells_what_it_says_itself(sides: Sides) -> None:
    """It comes from another process as a rule; the span that is current here is none of its."""
    asyncio.run(log_in_a_task(sides))
    record = pickle.loads(pickle.dumps(sides.queue.get()))
    record.process, record.threadName = 4711, "theirs"
    with TRACER.start_as_current_span("another"):
        sides.handler.handle(record)
    ((span_id, attributes),) = sides.told()
    assert span_id == 0
    attributes.pop("asyncio.task.name", None)  # CPython 3.12 and later
    assert attributes == {**MAIN, "process.pid": 4711, "thread.name": "theirs"}


@pytest.mark.usefixtures("hook")
def test_a_record_that_passes_through_no_queue_is_left_alone(sides: Sides) -> None:
    sides.logger.handlers = [sides.handler]
    span_id = asyncio.run(log_in_a_task(sides))
    assert sides.told() == [(span_id, {**MAIN, "asyncio.task.name": "packing"})]


def test_a_record_looks_as_without_us_and_nothing_is_kept_of_it(sides: Sides, hook: QueuedLogHook) -> None:
    asyncio.run(log_in_a_task(sides))
    with_us = sides.queue.get()
    hook.remove()
    asyncio.run(log_in_a_task(sides))
    assert vars(with_us).keys() == vars(sides.queue.get()).keys()
    hook.install()
    asyncio.run(log_in_a_task(sides))
    assert len(hook._origins) == 1
    sides.queue.get()
    gc.collect()
    assert len(hook._origins) == 0


def test_our_trouble_costs_no_record(sides: Sides) -> None:
    def fails(*_: object) -> context.Context:
        raise LookupError

    hook = QueuedLogHook(fails, fails)
    hook.install()
    try:
        asyncio.run(log_in_a_task(sides))
        sides.listen()
    finally:
        hook.remove()
    assert len(sides.told()) == 1


def test_removed_it_leaves_what_it_found(hook: QueuedLogHook) -> None:
    hook.install()
    hook.remove()
    assert hook._patches == []
    assert LoggingHandler.emit.__module__ == "opentelemetry.instrumentation.logging.handler"
    assert logging.handlers.QueueHandler.prepare.__module__ == "logging.handlers"
    assert logging.handlers.QueueHandler.enqueue.__module__ == "logging.handlers"
