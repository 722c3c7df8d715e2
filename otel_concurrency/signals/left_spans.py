"""The span in which the exception was raised that ends the main thread, asked when that span is long over.

While an exception leaves a `with` that makes a span, we remember where that `with` stands, and which span it
was; nothing of the exception. One whose traceback has the same instruction of the same code has left through
that very `with`, and has been remembered itself since: so what is remembered is about it, or about none.
"""

from __future__ import annotations

import sys
import threading
from types import CodeType
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

_MACHINERY = ("opentelemetry.", "contextlib", "otel_concurrency.")


class _Left(NamedTuple):
    error: int
    code: CodeType
    instruction: int
    span: SpanContext


class LeftSpans:
    """Remembers the innermost span that the last exception in the main thread has left."""

    def __init__(self) -> None:
        self._last: _Left | None = None

    def note(self, span: Span, error: BaseException) -> None:
        """Take note of a span that ends while an exception is there."""
        if threading.get_ident() != threading.main_thread().ident or self._is_known(error):
            return
        frame: Any = _user_of_span()
        at = error.__traceback__
        while at is not None and at.tb_frame is not frame:
            at = at.tb_next
        if at is not None:
            self._last = _Left(id(error), frame.f_code, at.tb_lasti, span.get_span_context())

    def context_of(self, error: BaseException) -> Context | None:
        """Return a context with the span in which an exception was raised; None where nobody knows."""
        if self._last is None or not self._is_known(error):
            return None
        return trace.set_span_in_context(NonRecordingSpan(self._last.span), Context())

    def _is_known(self, error: BaseException) -> bool:
        if self._last is None or self._last.error != id(error):
            return False
        at = error.__traceback__
        while at is not None:
            if at.tb_frame.f_code is self._last.code and at.tb_lasti == self._last.instruction:
                return True
            at = at.tb_next
        return False


def _user_of_span() -> Any:
    """Return the frame with the `with`, past what is between it and the end of the span."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        caller = frame.f_back
        # A context manager of somebody's own stands in between as a generator.
        if not _is_machinery(frame) and (caller is None or caller.f_code.co_name != "__exit__"):
            return frame
        frame = caller
    return None


def _is_machinery(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(_MACHINERY)
