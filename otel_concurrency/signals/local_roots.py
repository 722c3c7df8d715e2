"""Which span of this process a recorded span belongs to, and when that one has ended.

The local root of a span is the one above it whose own parent is in another process, or nowhere: the server
span of a request, for instance. A span of the SDK knows its parent's ids and nothing more.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

MAX_OPEN = 10_000
"""Roots known at a time; when there are more, the oldest are forgotten."""

_ROOT = "_otel_concurrency_root"
_TRACE_ID, _IS_REMOTE = 0, 2  # where the ids of a span, a tuple, have them


class LocalRoots(SpanProcessor):
    """Notes on each span which local root it belongs to."""

    def __init__(self) -> None:
        self._open: dict[int, Span] = {}  # by trace id

    def __repr__(self) -> str:
        return f"<LocalRoots [{len(self._open)} open]>"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span starts."""
        try:
            # Asked as properties, these would take longer than the rest: each span comes by here.
            context: Any = span._context
            parent: Any = span._parent
            if context is None:
                return
            if parent is None or parent[_IS_REMOTE]:
                if len(self._open) >= MAX_OPEN:
                    self._forget_oldest()
                self._open.setdefault(context.trace_id, span)  # of a service that calls itself, the outer one
            else:
                root = self._open.get(context[_TRACE_ID])
                if root is not None:
                    setattr(span, _ROOT, root)
        except Exception:  # better a span whose root is not known than an application that cannot start one
            pass

    def on_end(self, span: ReadableSpan) -> None:
        """It has ended."""
        try:
            parent = span._parent
            if parent is not None and not parent[_IS_REMOTE]:
                return
            context = span.context
            root = self._open.get(context.trace_id) if context is not None else None
            if root is not None and context is not None and root.context == context:
                self._open.pop(context.trace_id, None)
        except Exception:  # as above
            pass

    def forget(self) -> None:
        """Know none: those of a parent process are not ours."""
        self._open = {}

    def _forget_oldest(self) -> None:
        try:
            del self._open[next(iter(self._open))]
        except (KeyError, RuntimeError, StopIteration):
            pass  # another thread was there


def root_ended_unix_ns(span: Any) -> int | None:
    """Return when the local root of a span has ended, or the span itself where the root is not known.

    None while it has not, and for a span that does not tell.
    """
    ended: Any = getattr(getattr(span, _ROOT, span), "end_time", None)
    return ended if isinstance(ended, int) else None
