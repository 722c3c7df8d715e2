"""Who emitted a log record: thread, process and task.

OpenTelemetry's logging handler drops what the standard library's record knows of this (`thread`,
`threadName`, `process`, `taskName`; `opentelemetry/instrumentation/logging/handler.py`), so we look again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from opentelemetry.sdk._logs import LogRecordProcessor

from otel_concurrency.signals.current_context import get_current
from otel_concurrency.signals.names import PROCESS_PID
from otel_concurrency.signals.whereabouts import fill_in, whereabouts

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord


class IdentityLogRecordProcessor(LogRecordProcessor):
    """Puts the identity of whoever emits a log record into its attributes; those that are set already stay.

    Goes before the processor that exports. The identity is that of the thread which reaches OpenTelemetry:
    where a `logging.handlers.QueueListener` hands records over, that is the listener's thread, in no task.
    The same with the SDK's `ConcurrentMultiLogRecordProcessor`, which calls processors from a thread pool.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Add `thread.id`, `thread.name`, `process.pid`, `asyncio.task.name` and `request_id`."""
        try:
            record = log_record.log_record
            told = whereabouts(getattr(record, "context", None) or get_current())
            told[PROCESS_PID] = os.getpid()
            fill_in(record.attributes, told)
        except Exception:
            # Better a log record without identity than an application that fails because it logs; and saying
            # so would be one more log record.
            pass

    def shutdown(self) -> None:
        """Hold nothing, so have nothing to do."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Hold nothing, so have nothing to do."""
        return True
