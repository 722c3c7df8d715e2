"""Who emitted a log record: thread, process and task.

OpenTelemetry's logging handler drops what the standard library's record knows of this (`thread`,
`threadName`, `process`, `taskName`; `opentelemetry/instrumentation/logging/handler.py`), so we look again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.util.types import AnyValue

from otel_concurrency.signals.current_context import get_current
from otel_concurrency.signals.names import PROCESS_PID, TASK_NAME, THREAD_ID, THREAD_NAME
from otel_concurrency.signals.whereabouts import fill_in, whereabouts

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord

_PLACE = "otel_concurrency.place"  # in OpenTelemetry's context, while somebody else's record is emitted


class IdentityLogRecordProcessor(LogRecordProcessor):
    """Puts the identity of whoever emits a log record into its attributes; those that are set already stay.

    Goes before the processor that exports. The identity is that of the thread which reaches OpenTelemetry,
    unless the context tells of another one (`here`, `told_by`): where a `logging.handlers.QueueListener`
    hands records over, that is the place that logged. With the SDK's `ConcurrentMultiLogRecordProcessor`,
    which calls processors from a thread pool, it is a thread of the pool.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Add `thread.id`, `thread.name`, `process.pid`, `asyncio.task.name` and `request_id`."""
        try:
            record = log_record.log_record
            context = getattr(record, "context", None) or get_current()
            fill_in(record.attributes, _told(context) or _place(context))
        except Exception:
            # Better a log record without identity than an application that fails because it logs; and saying
            # so would be one more log record.
            pass

    def shutdown(self) -> None:
        """Hold nothing, so have nothing to do."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Hold nothing, so have nothing to do."""
        return True


def here() -> Context:
    """Return the current context, and who is here, for a log record that will be emitted elsewhere."""
    current = get_current()
    return Context({**current, _PLACE: _place(current)})


def told_by(record: logging.LogRecord) -> Context:
    """Return a context without a span, and with what a record of `logging` says of who made it."""
    told = {
        THREAD_ID: record.thread,
        THREAD_NAME: record.threadName,
        PROCESS_PID: record.process,
        TASK_NAME: getattr(record, "taskName", None),  # from CPython 3.12 on, of asyncio
    }
    return Context({_PLACE: {key: value for key, value in told.items() if value is not None}})


def add_log_context(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """See `otel_concurrency.add_log_context`."""
    current = get_current()
    span = trace.get_current_span(current).get_span_context()
    if span.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(span.trace_id))
        event.setdefault("span_id", trace.format_span_id(span.span_id))
    for key, value in (_told(current) or _place(current)).items():
        event.setdefault(key, value)
    return event


def _told(context: Context) -> dict[str, AnyValue] | None:
    return cast("dict[str, AnyValue] | None", context.get(_PLACE))


def _place(context: Context) -> dict[str, AnyValue]:
    told = whereabouts(context)
    told[PROCESS_PID] = os.getpid()
    return told
