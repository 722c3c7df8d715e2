"""Contexts of OpenTelemetry that could not be left; `opentelemetry.context.detach` logs each at length.

An asynchronous generator that enters a span and is closed by somebody else, in another context, does that
every time. Nothing is lost but the legibility of the log; here it is a failure, counted, and told now and
then.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.failures.raised import NOWHERE, Place, place_in

LOGGER = "opentelemetry.context"
MESSAGE = "Failed to detach context"

_MACHINERY = ("opentelemetry.", "logging", "contextlib", "otel_concurrency.")


class DetachFailures(logging.Filter):
    """Keeps back the log records, and notes each.

    Args:
        failures: Takes the notes.
    """

    def __init__(self, failures: Failures) -> None:
        super().__init__()
        self._failures = failures

    def __repr__(self) -> str:
        state = "installed" if self in logging.getLogger(LOGGER).filters else "removed"
        return f"<DetachFailures [{state}]>"

    def install(self) -> None:
        """Listen to OpenTelemetry's logger; a second call changes nothing."""
        logging.getLogger(LOGGER).addFilter(self)

    def remove(self) -> None:
        """Let everything through again."""
        logging.getLogger(LOGGER).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every other record."""
        if record.msg != MESSAGE or not record.exc_info:
            return True
        error = record.exc_info[1]
        return not self._failures.note("context_detach", error, is_here=True, place=_caller())


def _caller() -> Place:
    """Return where the context was to be left: the first frame above that is not machinery."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if not str(frame.f_globals.get("__name__")).startswith(_MACHINERY):
            return place_in(frame, frame.f_lineno)
        frame = frame.f_back
    return NOWHERE
