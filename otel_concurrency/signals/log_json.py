"""Log records as lines of JSON, to a stream or a file, beside or instead of their export.

One object a line: `time`, `level`, `logger`, `message`, `trace_id` and `span_id` inside a span, `event` for
an event, and `attributes`. The line is made where the record is emitted, as arguments and exceptions belong
to that thread; it is written elsewhere.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.trace import format_span_id, format_trace_id

from otel_concurrency.hooks import fork
from otel_concurrency.signals import names, providers
from otel_concurrency.signals.log_targets import FileTarget, target_of
from otel_concurrency.signals.log_writer import LogLines, LogWriter
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.readings import SumReading

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord

_logger = logging.getLogger(__name__)

SHUTDOWN_MILLIS = 3_000
"""How long the shutdown of a provider may wait, where it is not part of the end of the process."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str).encode
_second: tuple[int, str] = (0, "1970-01-01T00:00:00")  # the last one, and its text


class JsonLogProcessor(LogRecordProcessor):
    """Makes a line of each log record; goes behind the processor that adds identity.

    Args:
        writer: Takes the lines.
    """

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self.pipeline = LogLines(writer)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Hand over the line, or drop it where too many wait already."""
        if self._writer.has_room():
            self._writer.put(line_of(log_record))

    def shutdown(self) -> None:
        """Write what waits; nobody but a stuck reader makes that long."""
        self.force_flush(SHUTDOWN_MILLIS)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Write what waits."""
        return self._writer.drain(time.monotonic() + timeout_millis / 1e3)


class LogLineCounts:
    """A source with the number of lines that were written, and of those that were dropped.

    Args:
        writer: Whose.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, writer: LogWriter, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._writer = writer
        self._clock = clock
        self.start_unix_ns = clock()

    def begin(self) -> None:
        """Start at nothing in a forked child: its parent's lines are its parent's."""
        self._writer.begin()
        self.start_unix_ns = self._clock()

    def collect(self) -> tuple[SumReading, ...]:
        """Read the numbers."""
        counts = {"written": self._writer.written, "dropped": self._writer.dropped}
        return (SumReading(names.LOG_RECORDS, [({names.LOG_OUTCOME: key}, n) for key, n in counts.items()]),)


def install(where: str, *, max_waiting: int) -> Callable[[], None]:
    """Write the log records of the global provider; returns what ends that.

    Args:
        where: `stdout`, `stderr`, or the path of a file.
        max_waiting: Lines that may wait to be written.
    """
    provider = get_logger_provider()
    if not isinstance(provider, LoggerProvider):
        return lambda: None
    target = target_of(where)
    target.write(b"", None)
    if isinstance(target, FileTarget) and target.trouble is not None:
        _logger.warning(
            "OTEL_PYTHON_CONCURRENCY_LOG_JSON=%r cannot be written (%s); the default, none, stands",
            where,
            target.trouble,
        )
        return lambda: None
    writer = LogWriter(target, max_waiting=max_waiting, notice=dropped_line)
    counts = LogLineCounts(writer)
    processor = JsonLogProcessor(writer)
    take_out = providers.watch_logs(processor, provider)
    default_producer().register(counts)
    keep_in_parent = fork.in_child(counts.begin)

    def leave() -> None:
        take_out()
        processor.force_flush(1_000)
        default_producer().unregister(counts)
        keep_in_parent()

    return leave


def line_of(emitted: ReadWriteLogRecord) -> bytes:
    """Return the line; never raises."""
    record = emitted.log_record
    scope = emitted.instrumentation_scope
    line: dict[str, Any] = {
        "time": _text_of(record.timestamp or record.observed_timestamp or time.time_ns()),
        "level": record.severity_text,
        "logger": scope.name if scope is not None else None,
        "message": record.body,
    }
    if record.trace_id:
        line["trace_id"] = format_trace_id(record.trace_id)
        line["span_id"] = format_span_id(record.span_id or 0)
    if record.event_name:
        line["event"] = record.event_name
    if record.attributes:
        line["attributes"] = dict(record.attributes)
    return _bytes_of(line)


def dropped_line(number: int) -> bytes:
    """Return the line that tells how many are missing."""
    return _bytes_of(
        {
            "time": _text_of(time.time_ns()),
            "level": "WARN",
            "logger": names.SCOPE_NAME,
            "message": f"{number} log records are missing here: they came faster than they could be written",
            "attributes": {names.LOG_DROPPED: number},
        }
    )


def _bytes_of(line: dict[str, Any]) -> bytes:
    try:
        text = _encode(line)
    except Exception:  # not a number, a circle, a key that is no text, a `__str__` that raises
        text = _encode({key: _shown(value) for key, value in line.items()})
    # What UTF-8 cannot say, half of a surrogate pair, is written as JSON would escape it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return object.__repr__(value)


def _text_of(unix_ns: int) -> str:
    global _second
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    known, text = _second
    if known != seconds:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = (seconds, text)
    return f"{text}.{ns // 1000:06d}Z"
