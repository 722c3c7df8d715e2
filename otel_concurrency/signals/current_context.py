"""OpenTelemetry's current context, without the API's two calls beneath: for what runs for every work item.

Leans on `ContextVarsRuntimeContext._current_context` of opentelemetry-api, the default; beside another
runtime context these are the API's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry import trace
from opentelemetry.context import Context

_variable: Any = getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None)
is_default = isinstance(_variable, ContextVar)
variable: ContextVar[Context] | None = _variable if is_default else None
"""Has the current context; None with another runtime context."""

replaced: Mapping[str, object] = (
    vars(opentelemetry_context._RUNTIME_CONTEXT) if is_default else {"attach": None}
)
"""Has `attach` in it where a copy of the `contextvars` context is not all: with another runtime context, and
where somebody has put a function of theirs in the place of its `attach`."""

SPAN_KEY = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
"""Under which a context has its span."""

put: Callable[[Context, str, object], None] = dict.__setitem__
"""Set a value in a context that nobody has yet: OpenTelemetry's refuse to be changed."""

get_current: Callable[[], Context] = _variable.get if is_default else opentelemetry_context.get_current
"""Return the current context."""

attach: Callable[[Context], Any] = _variable.set if is_default else opentelemetry_context.attach
"""Make a context the current one; returns a token."""

detach: Callable[[Any], None] = _variable.reset if is_default else opentelemetry_context.detach
"""Put back what was current before a token was given; raises where the token is another context's."""
