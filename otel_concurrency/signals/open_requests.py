"""Requests that are open while something else holds their event loop: how long they had to wait for that.

A span of kind server or consumer is known from its start to its end, in the thread in which it started.
While a stall of that thread's loop is looked at, each that is open gets the time so far as an attribute,
whole stalls before it added; the trace of whoever holds the loop is left out. Nothing is done to a span of
another kind.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_concurrency.hooks.loops.stalls import Stall
from otel_concurrency.signals import names
from otel_concurrency.signals.request_times import REQUESTS
from otel_concurrency.signals.stand_in import seen_ids

MAX_OPEN = 1000
"""Requests known at a time; those beyond are not told of what they waited for."""


@dataclass(slots=True)
class _Request:
    span: Span
    thread_ident: int
    waited_ns: int = 0
    waits_for: Stall | None = None


class OpenRequests(SpanProcessor):
    """Knows the requests that are open, and tells them of stalls.

    Attributes:
        is_on: Whether requests that start now are to be known.
    """

    def __init__(self) -> None:
        self.is_on = True
        self._open: dict[int, _Request] = {}

    def __repr__(self) -> str:
        return f"<OpenRequests [{len(self._open)} open]>"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span starts, in its thread."""
        if self.is_on and span.kind in REQUESTS and len(self._open) < MAX_OPEN:
            self._open[span.get_span_context().span_id] = _Request(span, threading.get_ident())

    def on_end(self, span: ReadableSpan) -> None:
        """It has ended."""
        if self._open and (context := span.context) is not None:
            self._open.pop(context.span_id, None)

    def forget(self) -> None:
        """Know none: those of a parent process are not ours."""
        self._open = {}

    def spans(self) -> list[Span]:
        """Return those that are open, the oldest first."""
        return [request.span for request in list(self._open.values())]

    def tell(self, stall: Stall, *, is_over: bool = False) -> None:
        """Tell those that wait for a stall to end; from the thread that watches."""
        origin = stall.origin if isinstance(stall.origin, Context) else Context()
        culprit = seen_ids(trace.get_current_span(origin)).trace_id
        ends_ns = stall.began_unix_ns + stall.duration_ns
        for request in list(self._open.values()):
            span = request.span
            if request.thread_ident != stall.thread_ident or span.get_span_context().trace_id == culprit:
                continue
            waits_ns = ends_ns - max(stall.began_unix_ns, span.start_time or 0)
            # Of a stall that was looked at the end is known but roughly: who came after the last look, may
            # have come after it.
            if waits_ns <= 0 or (is_over and stall.looks and request.waits_for is not stall):
                continue
            span.set_attribute(names.STALL_OVERLAP, (request.waited_ns + waits_ns) / 1e9)
            request.waits_for = None if is_over else stall
            if is_over:
                request.waited_ns += waits_ns
