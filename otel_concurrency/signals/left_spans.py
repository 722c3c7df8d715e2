"""The span in which the exception was raised that ends the main thread, asked when that span is long over.

While an exception leaves a `with` that makes a span, we remember where that `with` stands, and which span it
was; nothing of the exception. One whose traceback has the same instruction of the same code has left through
that very `with`, and has been remembered itself since: so what is remembered is about it, or about none.

A group is told where the last of its exceptions was raised. Those that trio's tasks leave to their nursery
are remembered with the span that the task was created in, if they were raised in none of its own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import NonRecordingSpan, SpanContext

MAX_REMEMBERED = 16
"""Exceptions: while one is on its way, others may come and be handled."""

MAX_PARTS = 100
"""Exceptions of a group, and of the groups in it, that are looked at; and causes of one."""

_MACHINERY = ("opentelemetry.", "contextlib", "otel_concurrency.")


class _Left(NamedTuple):
    error: int
    code: CodeType
    instruction: int
    span: SpanContext
    at_unix_ns: int
    of_task: bool  # that one has passed here which is now a part of a group; else it may be another one


class LeftSpans:
    """Remembers the innermost spans that the last exceptions in the main thread have left."""

    def __init__(self) -> None:
        self._left: deque[_Left] = deque(maxlen=MAX_REMEMBERED)

    def note(self, span: Span, error: BaseException) -> None:
        """Take note of a span that ends while an exception is there."""
        if not _is_main_thread():
            return
        frame: Any = _user_of_span()
        at = error.__traceback__
        while at is not None and at.tb_frame is not frame:
            at = at.tb_next
        # What was remembered before this span began is about another one.
        if at is not None and self._find(error, since=span.start_time or 0) is None:
            self._remember(error, at, span.get_span_context())

    def note_task(self, error: BaseException, origin: object) -> None:
        """Take note of what a task has failed with that was created in an OpenTelemetry context."""
        at = error.__traceback__
        if not _is_main_thread() or at is None or self._find(error) is not None:
            return
        span = trace.get_current_span(origin if isinstance(origin, Context) else Context()).get_span_context()
        if span.is_valid:
            self._remember(error, at, span, of_task=True)

    def context_of(self, error: BaseException) -> Context | None:
        """Return a context with the span in which it or its cause was raised; None where nobody knows."""
        is_part = False
        for _ in range(MAX_PARTS):
            left = self._find(error, is_part=is_part)
            if left is not None:
                return trace.set_span_in_context(NonRecordingSpan(left.span), Context())
            if error.__cause__ is None:
                break
            error, is_part = error.__cause__, True
        return None

    def _remember(
        self, error: BaseException, at: TracebackType, span: SpanContext, *, of_task: bool = False
    ) -> None:
        left = _Left(id(error), at.tb_frame.f_code, at.tb_lasti, span, time.time_ns(), of_task)
        self._left.append(left)

    def _find(self, error: BaseException, *, since: int = 0, is_part: bool = False) -> _Left | None:
        """Return what was remembered of an exception, or of a group's last."""
        parts = [(error, is_part), *((each, True) for each in _parts_of(error))]
        for left in reversed(self._left):
            if left.at_unix_ns < since:
                break
            for each, each_is_part in parts:
                if left.error == id(each) and each_is_part >= left.of_task and _passes(each, left):
                    return left
        return None


def _parts_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, and of the groups in it."""
    waiting = [error]
    for _ in range(MAX_PARTS):
        if not waiting:
            return
        parts = getattr(waiting.pop(), "exceptions", None)
        if isinstance(parts, tuple):
            found = [each for each in parts if isinstance(each, BaseException)][:MAX_PARTS]
            yield from found
            waiting += found


def _passes(error: BaseException, left: _Left) -> bool:
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is left.code and at.tb_lasti == left.instruction:
            return True
        at = at.tb_next
    return False


def _is_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


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
