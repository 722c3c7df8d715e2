"""Which log record says what is reported already: it would be the same failure a second time.

The default exception handler of an asyncio loop logs what it is told, and so does trio of the generators that
it closes. Everybody's handlers get such a record as always; only the one that feeds OpenTelemetry leaves it
out where the failure is reported as such.
"""

from __future__ import annotations

import logging
import threading

ASYNCIO = "asyncio"
TRIO_ASYNCGENS = "trio.async_generator_errors"


class _Reported(threading.local):
    """What this thread is having reported now."""

    is_on = False
    error: object = None
    record: int | None = None  # id of one that a filter of its logger has seen, and its handlers are about to


_reported = _Reported()


def begin(error: object) -> tuple[bool, object]:
    """From now on this thread's event loop reports what is told already; returns what `end` takes.

    Args:
        error: The exception, or None.
    """
    before = (_reported.is_on, _reported.error)
    _reported.is_on, _reported.error = True, error
    return before


def end(before: tuple[bool, object]) -> None:
    """It is over."""
    _reported.is_on, _reported.error = before


def add(record: logging.LogRecord) -> None:
    """Call this very record, of trio's logger, a report of what is told already."""
    _reported.record = id(record)


def is_reported(record: logging.LogRecord) -> bool:
    """Whether a record only says what is told already; one about another exception does not."""
    if record.name == TRIO_ASYNCGENS:
        return id(record) == _reported.record
    if record.name != ASYNCIO or not _reported.is_on:
        return False
    error = record.exc_info[1] if record.exc_info else None
    return error is _reported.error
