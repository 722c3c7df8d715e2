"""One warning while the collector cannot be reached; everything else passes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

from otel_concurrency.hooks.logs.export_failures import ExportFailures

HTTP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
GRPC = "opentelemetry.exporter.otlp.proto.grpc.exporter"
PROCESSORS = "opentelemetry.sdk._shared_internal"
TRANSIENT = (
    "Transient error %s encountered while exporting %s batch, retrying in %.2fs.",
    "Connection refused",
    "spans",
    0.9,
)
GAVE_UP = ("Failed to export %s batch due to timeout, max retries or shutdown.", "metrics")
OF_GRPC = "Failed to export %s to %s, error code: %s, error details: %s"


class StatusCode:
    """As gRPC's prints itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"StatusCode.{self.name}"


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def failures(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExportFailures]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector:4318")
    for name in (HTTP, GRPC, PROCESSORS):  # upstream's own filters count repetitions by the wall clock
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    failures = ExportFailures(300, clock)
    failures.install()
    yield failures
    failures.remove()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


FIRST = (
    "Telemetry cannot be delivered (OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318); the application runs on."
    " Transient error Connection refused encountered while exporting spans batch, retrying in 0.90s."
    " [0 more failures since the last such warning; one in 300 s at most]"
)


def test_the_first_failure_is_told_and_the_others_are_counted(
    failures: ExportFailures, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Of all signals and both protocols together; the password in the endpoint stays out."""
    logging.getLogger(HTTP).warning(*TRANSIENT)
    logging.getLogger(HTTP.replace("trace", "metric")).error(*GAVE_UP)
    logging.getLogger(HTTP).warning("Shutdown in progress, aborting retry.")
    clock.now_s += 299
    logging.getLogger(GRPC).error(OF_GRPC, "logs", "collector", StatusCode("UNAVAILABLE"), "")
    assert told(caplog) == [("WARNING", FIRST)]
    assert repr(failures) == "<ExportFailures [3 suppressed, one warning in 300 s]>"
    clock.now_s += 250
    logging.getLogger(HTTP).error(*GAVE_UP)
    clock.now_s += 299  # counted from the last warning, not by the calendar
    logging.getLogger(HTTP).error(*GAVE_UP)
    assert len(told(caplog)) == 2
    level, message = told(caplog)[1]
    assert level == "WARNING"
    assert message.endswith("[3 more failures since the last such warning; one in 300 s at most]")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (HTTP, ("Failed to export %s batch code: %s, reason: %s", "spans", 401, "Unauthorized")),
        (HTTP, ("Failed to encode span batch: %s", "x")),
        (HTTP, ("Dropping span batch: serialized size %d bytes exceeds max_request_size %d bytes.", 2, 1)),
        (GRPC, (OF_GRPC, "logs", "collector", StatusCode("INVALID_ARGUMENT"), "")),
        ("app", TRANSIENT),
    ],
)
def test_what_needs_a_person_passes_each_time(
    failures: ExportFailures, caplog: pytest.LogCaptureFixture, name: str, arguments: tuple[object, ...]
) -> None:
    for _ in range(2):
        logging.getLogger(name).error(*arguments)
    passed = [record.getMessage() for record in caplog.records]
    assert len(passed) == 2
    assert "Telemetry cannot be delivered" not in "".join(passed)


def test_a_full_queue_is_kept_back_only_while_deliveries_fail(
    failures: ExportFailures, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it says that the program makes more than can be sent."""
    processors = logging.getLogger(PROCESSORS)
    processors.warning("Queue full, dropping %s.", "Span")
    logging.getLogger(HTTP).warning(*TRANSIENT)
    clock.now_s += 10
    processors.warning("Queue full, dropping %s.", "Log")
    clock.now_s += 300
    processors.warning("Queue full, dropping %s.", "Spans")
    assert [message for _, message in told(caplog)] == [
        "Queue full, dropping Span.",
        FIRST,
        "Queue full, dropping Spans.",
    ]


def test_a_collector_that_does_not_answer_counts_as_unreachable(
    failures: ExportFailures, caplog: pytest.LogCaptureFixture
) -> None:
    """No status code: the connection hung, or broke."""
    template = "Failed to export %s batch code: %s, reason: %s"
    for _ in range(2):
        logging.getLogger(HTTP).error(template, "spans", None, "read timed out")
    assert len(told(caplog)) == 1


def test_removed_it_lets_everything_through(
    failures: ExportFailures, caplog: pytest.LogCaptureFixture
) -> None:
    failures.remove()
    for _ in range(2):
        logging.getLogger(HTTP).warning(*TRANSIENT)
    assert [level for level, _ in told(caplog)] == ["WARNING", "WARNING"]
    assert all(message.startswith("Transient error") for _, message in told(caplog))


def test_the_warning_reaches_standard_error_where_only_telemetry_listens(
    failures: ExportFailures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The handler that feeds the exporters is no way to say that they are stuck."""

    class LoggingHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pass

    LoggingHandler.__module__ = "opentelemetry.instrumentation.logging.handler"
    monkeypatch.setattr(logging.root, "handlers", [LoggingHandler()])
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(sys.stdout))
    logging.getLogger(HTTP).warning(*TRANSIENT)
    assert capsys.readouterr().out.splitlines() == [FIRST]


def test_an_exporter_that_was_shut_down_in_time_says_nothing(
    failures: ExportFailures, caplog: pytest.LogCaptureFixture
) -> None:
    """The time for the exit was over; that is what the setting asks for."""
    logging.getLogger(HTTP).warning("Exporter already shutdown, ignoring batch")
    assert told(caplog) == []
