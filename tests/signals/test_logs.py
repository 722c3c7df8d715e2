"""Log records through the real SDK and the real logging handler: who they say emitted them."""

from __future__ import annotations

import _thread
import ast
import asyncio
import logging
import os
import signal
import threading
from types import SimpleNamespace

import pytest
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_concurrency.signals.logs import IdentityLogRecordProcessor


class Records:
    """A logger of the standard library, and what OpenTelemetry made of its records."""

    def __init__(self) -> None:
        self.exporter = InMemoryLogRecordExporter()
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(IdentityLogRecordProcessor())
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        self.logger = logging.Logger("app")
        self.logger.addHandler(LoggingHandler(logger_provider=self.provider))

    def attributes(self) -> list[dict[str, object]]:
        return [dict(data.log_record.attributes) for data in self.exporter.get_finished_logs()]


@pytest.fixture
def records():
    records = Records()
    yield records
    records.provider.shutdown()


MAIN = {"thread.id": threading.get_ident(), "thread.name": "MainThread", "process.pid": os.getpid()}


def test_a_record_says_its_thread_and_process(records):
    records.logger.warning("hello")
    assert records.attributes() == [MAIN]


def test_a_record_of_another_thread_says_that_one(records):
    thread = threading.Thread(target=records.logger.warning, args=("hello",), name="worker-7")
    thread.start()
    thread.join(10)
    assert records.attributes() == [
        {"thread.id": thread.ident, "thread.name": "worker-7", "process.pid": os.getpid()}
    ]


def test_a_thread_that_threading_does_not_know_stays_unknown(records):
    """It has no name, and logging in it leaves no dummy thread behind."""
    done = threading.Event()
    known = threading.enumerate()
    idents = []

    def foreign():
        idents.append(_thread.get_ident())
        records.provider.get_logger("app").emit(body="hello")
        after.extend(threading.enumerate())
        done.set()

    after = []
    _thread.start_new_thread(foreign, ())
    assert done.wait(10)
    assert records.attributes() == [{"thread.id": idents[0], "process.pid": os.getpid()}]
    assert after == known


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_record_says_its_task(records, loop):
    """Each task its own, and none where a loop runs a plain callback."""

    async def speak():
        records.logger.warning("hello")
        await asyncio.sleep(0)
        records.logger.warning("again")

    async def main():
        one, other = (asyncio.create_task(speak(), name=name) for name in ("one", "other"))
        await asyncio.gather(one, other)
        called = asyncio.Event()
        asyncio.get_running_loop().call_soon(lambda: (records.logger.warning("callback"), called.set()))
        await called.wait()

    new_event_loop = (
        asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    )
    event_loop = new_event_loop()
    try:
        event_loop.run_until_complete(main())
    finally:
        event_loop.close()
    in_task = [{**MAIN, "asyncio.task.name": name} for name in ("one", "other", "one", "other")]
    assert records.attributes() == [*in_task, MAIN]


def test_a_worker_thread_of_a_task_is_in_no_task(records):
    async def main():
        await asyncio.to_thread(records.logger.warning, "hello")

    asyncio.run(main())
    (attributes,) = records.attributes()
    assert attributes["thread.name"].startswith("asyncio_")
    assert "asyncio.task.name" not in attributes


def test_what_the_application_set_stays(records):
    theirs = {
        "thread.id": -1,
        "thread.name": "theirs",
        "process.pid": -2,
        "asyncio.task.name": "also theirs",
        "order": 5,
    }

    async def main():
        records.logger.warning("hello", extra=theirs)

    asyncio.run(main())
    assert records.attributes() == [theirs]


def test_a_full_record_loses_nothing_of_the_applications(monkeypatch):
    monkeypatch.setenv("OTEL_ATTRIBUTE_COUNT_LIMIT", "3")
    records = Records()
    records.logger.warning("hello", extra={"a": 1, "b": 2})
    assert records.attributes() == [{"a": 1, "b": 2, "thread.id": MAIN["thread.id"]}]
    (data,) = records.exporter.get_finished_logs()
    assert data.log_record.attributes.dropped == 0


def test_a_length_limit_holds_for_names_too(monkeypatch):
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    records = Records()
    records.logger.warning("hello")
    assert records.attributes() == [{**MAIN, "thread.name": "Main"}]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_says_its_own_process(records):
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that hangs ends
        told = b"nothing"
        try:
            records.logger.warning("hello")
            told = repr(records.attributes()).encode()
        finally:
            os.write(write_end, told)
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as child_says:
        told = child_says.read().decode()
    os.waitpid(child, 0)
    assert ast.literal_eval(told) == [{**MAIN, "process.pid": child}]


@pytest.mark.parametrize(
    ("attributes", "expected"), [(None, None), ((), ()), ("unset", "unset"), ({"a": 1}, {"a": 1, **MAIN})]
)
def test_it_never_raises(attributes, expected):
    """Whatever stands where the SDK's attributes should be; a plain mapping is filled."""
    log_record = SimpleNamespace() if attributes == "unset" else SimpleNamespace(attributes=attributes)
    IdentityLogRecordProcessor().on_emit(SimpleNamespace(log_record=log_record))
    assert getattr(log_record, "attributes", "unset") == expected


def test_a_task_whose_name_cannot_be_told_keeps_no_record_back(records, monkeypatch):
    monkeypatch.setattr(asyncio, "_get_running_loop", lambda: 1 / 0)
    records.logger.warning("hello")
    assert records.attributes() == [{}]


def test_flushing_and_shutting_down_have_nothing_to_do():
    processor = IdentityLogRecordProcessor()
    assert processor.force_flush()
    assert processor.shutdown() is None
