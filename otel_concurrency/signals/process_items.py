"""What OpenTelemetry sees of a process pool's work item, in the worker process: its context, and its span.

The context is attached to the worker's own, not run in a copy of it: what an item leaves in other context
variables (a decimal context, say) is there for the next item, as it is without us.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.trace import SpanKind, StatusCode

from otel_concurrency._version import __version__
from otel_concurrency.probes.crossing import Carrier, End, Late
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.pure import type_name
from otel_concurrency.signals import names
from otel_concurrency.signals.carriers import extract
from otel_concurrency.signals.current_context import attach, detach, get_current, is_default

NS = 1_000_000_000

_IS_NAMED = OTEL_PYTHON_TRACER_PROVIDER in os.environ


class ProcessItems:
    """Gives each item the context of its submitter and, inside a sampled span, a consumer span of its own.

    Args:
        spans: Whether to make spans.
    """

    def __init__(self, *, spans: bool = True) -> None:
        self._spans = spans
        self._tracer = trace.get_tracer(names.SCOPE_NAME, __version__)
        self._known = (Context(), False)  # of the last item: its context, and whether that asks for a span

    def __call__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        carrier: Carrier,
        pool: str,
        kind: str,
        queue_ns: int,
    ) -> End | None:
        """Attach the item's context and start its span; returns what ends both."""
        if not carrier and not get_current():
            return None
        context = extract(carrier)
        if self._known[0] is not context:  # `extract` says the same to items of one submitter
            self._known = (context, self._spans and _is_sampled(context))
        if self._known[1] and _is_recorded():
            name = _name_in_submitter(function_name(function, args))
            span = self._tracer.start_span(
                name,
                context,
                SpanKind.CONSUMER,
                {
                    names.CODE_FUNCTION_NAME: name,
                    names.EXECUTOR_NAME: pool,
                    names.EXECUTOR_TYPE: kind,
                    names.WORK_QUEUE_TIME: queue_ns / NS,
                },
            )
            return _ender(attach(trace.set_span_in_context(span, context)), span)
        token = attach(context)
        # A token of the variable that the crossing knows needs no call of ours to put it back.
        return token if is_default else lambda error, stacktrace: detach(token)


def _is_sampled(context: Context) -> bool:
    return trace.get_current_span(context).get_span_context().trace_flags.sampled


def _is_recorded() -> bool:
    """Whether this process has a tracer provider: without one, spans would be made for nobody."""
    if getattr(trace, "_TRACER_PROVIDER", trace) is None and not _IS_NAMED:
        return False  # what follows would say so, too, but looks into the environment each time
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _name_in_submitter(name: str) -> str:
    """Name a function of the program's main module as the process that submits it does."""
    module, dot, rest = name.partition(".")
    return f"__main__.{rest}" if dot and module == "__mp_main__" else name


def _ender(token: object, span: trace.Span) -> End:
    def end(error: BaseException | None, stacktrace: str | None) -> Late:
        detach(token)
        return functools.partial(_end, span, error, stacktrace, time.time_ns())

    return end


def _end(span: trace.Span, error: BaseException | None, stacktrace: str | None, ended_ns: int) -> None:
    """End the span of an item, now that its result is out: as of when the item ended."""
    if error is not None and span.is_recording():
        kind = type_name(type(error))
        span.set_attribute(names.ERROR_TYPE, kind)
        span.record_exception(error, {"exception.stacktrace": stacktrace or ""}, ended_ns)
        span.set_status(StatusCode.ERROR, f"{kind}: {error}")
    span.end(ended_ns)
