"""Who emitted a log record: thread, process and asyncio task.

OpenTelemetry's logging handler drops what the standard library's record knows of this (`thread`,
`threadName`, `process`, `taskName`; `opentelemetry/instrumentation/logging/handler.py`), so we look again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk._logs import LogRecordProcessor

from otel_concurrency.signals.names import PROCESS_PID, TASK_NAME, THREAD_ID, THREAD_NAME

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadWriteLogRecord


class IdentityLogRecordProcessor(LogRecordProcessor):
    """Puts the identity of whoever emits a log record into its attributes; those that are set already stay.

    Goes before the processor that exports. The identity is that of the thread which reaches OpenTelemetry:
    where a `logging.handlers.QueueListener` hands records over, that is the listener's thread, in no task.
    The same with the SDK's `ConcurrentMultiLogRecordProcessor`, which calls processors from a thread pool.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Add `thread.id`, `thread.name`, `process.pid` and, inside a task, `asyncio.task.name`."""
        try:
            _add(log_record.log_record.attributes, _identity())
        except Exception:
            # Better a log record without identity than an application that fails because it logs; and saying
            # so would be one more log record.
            pass

    def shutdown(self) -> None:
        """Hold nothing, so have nothing to do."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Hold nothing, so have nothing to do."""
        return True


def _identity() -> dict[str, str | int]:
    thread_id = threading.get_ident()
    identity: dict[str, str | int] = {THREAD_ID: thread_id}
    # `threading.current_thread()` would register a dummy, for good, for a thread that C code started.
    thread = threading._active.get(thread_id)  # type: ignore[attr-defined]
    if thread is not None:
        identity[THREAD_NAME] = thread.name
    identity[PROCESS_PID] = os.getpid()
    # Asked first, as `asyncio.current_task()` raises where no loop runs.
    loop = asyncio._get_running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    if task is not None:
        identity[TASK_NAME] = task.get_name()
    return identity


def _add(attributes: object, identity: dict[str, str | int]) -> None:
    if isinstance(attributes, BoundedAttributes) and attributes.max_value_len is None:
        # The SDK checks and locks for each value that is set, 1 µs apiece; ours are clean, and nobody else
        # has the record yet.
        target: MutableMapping[str, Any] = attributes._dict
    elif isinstance(attributes, MutableMapping):
        target = attributes
    else:
        return
    room = getattr(attributes, "maxlen", None)
    if room is None or len(target) + len(identity) <= room:
        for key, value in identity.items():
            target.setdefault(key, value)
        return
    for key, value in identity.items():
        # A full mapping would drop its oldest entry, which is the application's.
        if key not in target and len(target) < room:
            target[key] = value
