"""In which trace a task is, told by its context: for whoever looks at it from outside."""

from __future__ import annotations

import contextvars

from opentelemetry import trace

from otel_concurrency.signals.current_context import variable
from otel_concurrency.signals.stand_in import seen_ids


def ids_in(context: contextvars.Context) -> tuple[str, str] | None:
    """Return the ids of trace and span, hexadecimal; None outside of any.

    No span becomes one by that: a task whose own is still open has the ids of the span around it.
    """
    current = context.get(variable) if variable is not None else None
    if current is None:
        return None
    ids = seen_ids(trace.get_current_span(current))
    if not ids.is_valid:
        return None
    return trace.format_trace_id(ids.trace_id), trace.format_span_id(ids.span_id)
