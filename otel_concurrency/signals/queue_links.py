"""From who put an item into a queue to who took it: a link on the consumer's span.

A consumer that takes an item inside of a span gets the link there. One that takes it outside, as most do,
gets it on the next span that starts without a parent in the same task or thread.
"""

from __future__ import annotations

from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanContext

_waiting: ContextVar[list[SpanContext] | None] = ContextVar("otel_concurrency_queue_links", default=None)


class QueueLinks(SpanProcessor):
    """Links spans to those in which the items were put that they are about."""

    def sent(self) -> SpanContext | None:
        """Return the span in which an item is put; None outside of any."""
        context = trace.get_current_span().get_span_context()
        return context if context.is_valid else None

    def received(self, brought: SpanContext) -> None:
        """Link the current span, or the next one that starts here."""
        span = trace.get_current_span()
        if span.is_recording():
            span.add_link(brought)
        elif not span.get_span_context().is_valid:
            _waiting.set([brought])  # of several items taken before a span starts, that one is about the last

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span starts."""
        waiting = _waiting.get()
        if waiting and span.parent is None:
            span.add_link(waiting.pop())
