"""Context that a process starts with: what its environment names, and what a fork has left in its memory."""

from __future__ import annotations

import contextvars
import re
from collections.abc import Mapping

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class _Variables(Getter[Mapping[str, str]]):
    """Reads a propagator's fields from an environment, where they stand in capitals."""

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        value = carrier.get(re.sub(r"[^A-Za-z0-9_]", "_", key).upper())
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return [name for name in carrier if _VARIABLE.fullmatch(name)]


def from_environment(environ: Mapping[str, str]) -> Context | None:
    """Return the context that an environment names; None where it names no trace and no baggage."""
    found = propagate.extract(environ, Context(), getter=_Variables())
    is_something = trace.get_current_span(found).get_span_context().is_valid or baggage.get_all(found)
    return found if is_something else None


def of_forked_child() -> contextvars.Context:
    """Return a copy of the current context, with the parent process's span as what it is now: remote.

    The copy in the child's memory still records; what the child would write to it, or its end, would be told
    a second time or not at all.
    """
    copied = contextvars.copy_context()
    span = trace.get_current_span()
    if span.is_recording():
        ids = span.get_span_context()
        remote = trace.SpanContext(ids.trace_id, ids.span_id, True, ids.trace_flags, ids.trace_state)
        copied.run(context.attach, trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    return copied
