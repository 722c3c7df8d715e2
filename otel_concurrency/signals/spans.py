"""Who started a span: thread and task. The process is in the resource (see `identity`)."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from otel_concurrency.signals.current_context import get_current
from otel_concurrency.signals.whereabouts import fill_in, whereabouts


class IdentitySpanProcessor(SpanProcessor):
    """Puts the identity of whoever starts a span into its attributes; those that are set already stay.

    Attributes:
        is_on: Whether spans that start now are told.
    """

    def __init__(self) -> None:
        self.is_on = True

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Add `thread.id`, `thread.name`, in a task `asyncio.task.name`, in a request `request_id`."""
        if self.is_on:
            try:
                fill_in(
                    span._attributes, whereabouts(get_current() if parent_context is None else parent_context)
                )
            except Exception:  # better a span without identity than an application that cannot start one
                pass
