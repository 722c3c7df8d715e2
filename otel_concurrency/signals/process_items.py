"""What OpenTelemetry sees of a process pool's work item, in the worker process: its context, and its span.

An item gets a span if it tells something: by default if it was slow or failed, or if something took the
span's ids or wrote to it. The context is attached to the worker's own, not run in a copy of it: what an item
leaves in other context variables (a decimal context, say) is there for the next item, as it is without us.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.probes.crossing import Again, Carrier, End, Late
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.pure import type_name
from otel_concurrency.signals import late_span, names
from otel_concurrency.signals.carriers import extract
from otel_concurrency.signals.current_context import SPAN_KEY, attach, detach, get_current, is_default, put
from otel_concurrency.signals.late_span import LateSpan

NS = 1_000_000_000

_IS_NAMED = OTEL_PYTHON_TRACER_PROVIDER in os.environ


class ProcessItems:
    """Gives each item the context of its submitter and, inside a sampled span, a consumer span of its own.

    Attributes:
        tracer: Makes the spans.
        threshold_ns: From when on an item is slow; 0: each gets a span.

    Args:
        spans: Whether to make spans.
        threshold_ns: As above.
    """

    def __init__(self, *, spans: bool = True, threshold_ns: int = 100_000_000) -> None:
        self._spans = spans
        self.threshold_ns = threshold_ns
        self.tracer = trace.get_tracer(names.SCOPE_NAME, __version__)
        # Of the last item: its context, whether that asks for a span, and the submitter's.
        self._known = (Context(), False, trace.INVALID_SPAN_CONTEXT)
        self._repeats = 0  # of that context

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
            parent = trace.get_current_span(context).get_span_context()
            self._known = (context, self._spans and parent.trace_flags.sampled, parent)
            self._repeats = -1
        self._repeats += 1
        if self._known[1] and _is_recorded():
            span = ItemSpan(
                self, self._known[2], context, (function, args, pool, kind, queue_ns, time.time_ns())
            )
            again = span.again(carrier) if self._repeats == 1 and is_default and self.threshold_ns else None
            if not self.threshold_ns:
                span.make()
            inside = Context(context)
            put(inside, SPAN_KEY, span)
            token = attach(inside)
            if not is_default:
                return functools.partial(_detach_first, token, span)
            return (token, span) if again is None else (token, span, again)
        token = attach(context)
        # A token of the variable that the crossing knows needs no call of ours to put it back.
        return token if is_default else lambda error, stacktrace: detach(token)


class ItemSpan(LateSpan):
    """The span of an item, and what ends it.

    Args:
        items: Whose it is.
        parent: The ids of the submitter's span.
        context: The one around it.
        item: What is its own: the function, its arguments, the names of its pool and of that one's kind, what
            it was queued, ns, and when it began, ns since the epoch; see `Again`.
    """

    def __init__(
        self,
        items: ProcessItems,
        parent: SpanContext,
        context: Context,
        item: tuple[Callable[..., Any], tuple[Any, ...], str, str, int, int],
    ) -> None:
        super().__init__(parent)
        self._items = items
        self._around = context
        self._item = item

    def again(self, carrier: Carrier) -> Again:
        """Say how the next of the same carrier begin; to be asked before this one is current."""
        unchanged = ((trace, "_TRACER_PROVIDER"), (propagate, "_HTTP_TEXT_FORMAT"), (late_span, "forks"))
        shared = {name: value for name, value in vars(self).items() if name != "_item"}
        return Again(
            dict(carrier),
            tuple((vars(module), name, getattr(module, name, self)) for module, name in unchanged),
            self._around,
            SPAN_KEY,
            ItemSpan,
            shared,
        )

    def start(self) -> trace.Span:
        function, args, pool, kind, queue_ns, begun_ns = self._item
        name = _name_in_submitter(function_name(function, args))
        attributes: dict[str, AnyValue] = {
            names.CODE_FUNCTION_NAME: name,
            names.EXECUTOR_NAME: pool,
            names.EXECUTOR_TYPE: kind,
            names.WORK_QUEUE_TIME: queue_ns / NS,
        }
        tracer = self._items.tracer
        return tracer.start_span(name, self._around, SpanKind.CONSUMER, attributes, start_time=begun_ns)

    def __call__(self, error: BaseException | None, stacktrace: str | None, ended_ns: int) -> None:
        """The item has run, and its result is out: end the span, if there is to be one, as of then."""
        if error is None and ended_ns - self._item[-1] < self._items.threshold_ns and self.close() is None:
            return
        span = self.make()
        if error is not None and span.is_recording():
            kind = type_name(type(error))
            span.set_attribute(names.ERROR_TYPE, kind)
            span.record_exception(error, {"exception.stacktrace": stacktrace or ""}, ended_ns)
            span.set_status(StatusCode.ERROR, f"{kind}: {error}")
        span.end(ended_ns)


def _detach_first(token: Any, span: ItemSpan, error: BaseException | None, stacktrace: str | None) -> Late:
    """End an item whose token the crossing does not know."""
    detach(token)
    return functools.partial(span, error, stacktrace, time.time_ns())


def _is_recorded() -> bool:
    """Whether this process has a tracer provider: without one, spans would be made for nobody."""
    if getattr(trace, "_TRACER_PROVIDER", trace) is None and not _IS_NAMED:
        return False  # what follows would say so, too, but looks into the environment each time
    return type(trace.get_tracer_provider()) is not trace.ProxyTracerProvider


def _name_in_submitter(name: str) -> str:
    """Name a function of the program's main module as the process that submits it does."""
    module, dot, rest = name.partition(".")
    return f"__main__.{rest}" if dot and module == "__mp_main__" else name
