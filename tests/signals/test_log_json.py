"""Log records as lines of JSON: what a line says, and that each record is one of them or counted."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from otel_concurrency.signals import log_json, pipelines
from otel_concurrency.signals.log_json import JsonLogProcessor, LogLineCounts, dropped_line
from otel_concurrency.signals.log_targets import FileTarget
from otel_concurrency.signals.log_writer import LogLines, LogWriter
from otel_concurrency.signals.logs import IdentityLogRecordProcessor

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("app")
MAIN = {"thread.id": threading.get_ident(), "thread.name": "MainThread", "process.pid": os.getpid()}
AT = 1_700_000_000_123_456_789
AT_TEXT = "2023-11-14T22:13:20.123456Z"


class Log:
    """A provider whose records become lines of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = LogWriter(FileTarget(str(path)), max_waiting=10_000, notice=dropped_line)
        self.processor = JsonLogProcessor(self.writer)
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(IdentityLogRecordProcessor())
        self.provider.add_log_record_processor(self.processor)
        self.logger = logging.Logger("shop")
        self.logger.addHandler(LoggingHandler(logger_provider=self.provider))

    def lines(self) -> list[dict[str, Any]]:
        assert self.processor.force_flush()
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "log.jsonl")
    yield log
    log.provider.shutdown()


def test_a_line_says_all_of_a_record(log: Log) -> None:
    with TRACER.start_as_current_span("work") as span:
        log.logger.warning("packs %d, grün", 3, extra={"order": "44", "weight": 1.5})
    (line,) = log.lines()
    assert line.pop("time")[:2] == "20"
    assert line == {
        "level": "WARN",
        "logger": "shop",
        "message": "packs 3, grün",
        "trace_id": format_trace_id(span.get_span_context().trace_id),
        "span_id": format_span_id(span.get_span_context().span_id),
        "attributes": {"order": "44", "weight": 1.5, **MAIN},
    }


def test_an_event_says_its_name_and_a_time_is_to_the_microsecond(log: Log) -> None:
    for at in (AT, AT + 1_000_000_000, AT):
        log.provider.get_logger("app").emit(
            timestamp=at, severity_number=SeverityNumber.INFO, severity_text="INFO", event_name="app.begun"
        )
    assert log.lines()[0] == {
        "time": AT_TEXT,
        "level": "INFO",
        "logger": "app",
        "message": None,
        "event": "app.begun",
        "attributes": MAIN,
    }
    assert [line["time"] for line in log.lines()] == [AT_TEXT, AT_TEXT.replace(":20.", ":21."), AT_TEXT]


def test_an_exception_is_one_line(log: Log) -> None:
    try:
        raise LookupError("nobody\nlooks")
    except LookupError:
        log.logger.exception("failed")
    (line,) = log.lines()
    told = line["attributes"]
    assert (told["exception.type"], told["exception.message"]) == ("LookupError", "nobody\nlooks")
    assert told["exception.stacktrace"].startswith("Traceback")


class Unspeakable:
    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize(
    "body", [float("nan"), {"a": [1, float("inf")]}, Unspeakable(), "\ud800", b"raw", {1: 2}]
)
def test_whatever_is_logged_the_line_is_json(log: Log, body: Any) -> None:
    log.provider.get_logger("app").emit(timestamp=AT, body=body)
    (line,) = log.lines()
    assert line["time"] == AT_TEXT
    assert "message" in line


def test_the_missing_are_told_of_in_the_file_itself() -> None:
    line = json.loads(dropped_line(7))
    assert (line["level"], line["attributes"]) == ("WARN", {"otel_concurrency.log.dropped": 7})
    assert line["message"].startswith("7 log records are missing here")


def test_each_of_many_records_is_written_or_dropped_and_the_file_tells(tmp_path: Path) -> None:
    """20,000 at full speed into a queue of 100."""
    log = Log(tmp_path / "log.jsonl")
    log.writer._max_waiting = 100
    for number in range(20_000):
        log.logger.warning("record", extra={"number": number})
    lines = log.lines()
    assert log.processor.force_flush()
    missing = [line["attributes"].get("otel_concurrency.log.dropped") for line in lines]
    numbers = [line["attributes"]["number"] for line in lines if "number" in line["attributes"]]
    assert log.writer.offered == 20_000
    assert log.writer.written == len(numbers)
    assert log.writer.written + log.writer.dropped == 20_000
    assert sum(filter(None, missing)) == log.writer.dropped
    assert numbers == sorted(set(numbers))
    log.provider.shutdown()


def test_the_counts_are_a_metric(log: Log) -> None:
    log.logger.warning("one")
    log.writer._max_waiting = 0
    log.logger.warning("two")
    log.lines()
    (reading,) = LogLineCounts(log.writer).collect()
    assert {labels["otel_concurrency.log.outcome"]: count for labels, count in reading.points} == {
        "written": 1,
        "dropped": 1,
    }


def test_it_is_a_way_out_of_the_process(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "get_logger_provider", lambda: log.provider)
    assert [type(each) for each in pipelines.current().log_records] == [LogLines]


def test_it_joins_the_global_provider_and_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(log_json, "get_logger_provider", lambda: provider)
    path = tmp_path / "log.jsonl"
    leave = log_json.install(str(path), max_waiting=10)
    provider.get_logger("app").emit(body="hello")
    leave()
    provider.get_logger("app").emit(body="nobody hears this")
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["hello"]
    chain: Any = provider._multi_log_record_processor
    assert chain._log_record_processors == ()


def test_without_an_sdk_there_is_nothing_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_json, "get_logger_provider", object)
    log_json.install("nowhere/at/all", max_waiting=10)()


def test_a_file_that_cannot_be_opened_is_told_of_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(log_json, "get_logger_provider", lambda: provider)
    log_json.install(str(tmp_path / "nowhere" / "log"), max_waiting=10)
    (message,) = caplog.messages
    assert message.startswith(f"OTEL_PYTHON_CONCURRENCY_LOG_JSON='{tmp_path}")
    assert "cannot be written ([Errno 2]" in message
    assert message.endswith("; the default, none, stands")
    chain: Any = provider._multi_log_record_processor
    assert chain._log_record_processors == ()
