"""What OpenTelemetry sees of a process pool's work item, in the worker process: its context, and its span.

The context is attached to the worker's own, not run in a copy of it: what an item leaves in other context
variables (a decimal context, say) is there for the next item, as it is without us.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry import context as opentelemetry_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from otel_concurrency._version import __version__
from otel_concurrency.hooks.pool_items import End, Item
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.pure import type_name
from otel_concurrency.signals import names
from otel_concurrency.signals.carriers import extract

NS = 1_000_000_000


class ProcessItems:
    """Gives each item the context of its submitter and, inside a sampled span, a consumer span of its own.

    Args:
        spans: Whether to make spans.
    """

    def __init__(self, *, spans: bool = True) -> None:
        self._spans = spans
        self._tracer = trace.get_tracer(names.SCOPE_NAME, __version__)

    def __call__(self, item: Item) -> End | None:
        """Attach the item's context and start its span; returns what ends both."""
        if not item.carrier and not opentelemetry_context.get_current():
            return None
        context = extract(item.carrier)
        span = None
        if self._spans and _is_sampled(context) and _is_recorded():
            name = _name_in_submitter(function_name(item.function, item.args))
            span = self._tracer.start_span(
                name,
                context,
                SpanKind.CONSUMER,
                {
                    names.CODE_FUNCTION_NAME: name,
                    names.EXECUTOR_NAME: item.pool,
                    names.EXECUTOR_TYPE: item.kind,
                    names.WORK_QUEUE_TIME: item.queue_ns / NS,
                },
            )
            context = trace.set_span_in_context(span, context)
        return _ender(opentelemetry_context.attach(context), span)


def _is_sampled(context: Context) -> bool:
    return trace.get_current_span(context).get_span_context().trace_flags.sampled


def _is_recorded() -> bool:
    """Whether this process has a tracer provider: without one, spans would be made for nobody."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _name_in_submitter(name: str) -> str:
    """Name a function of the program's main module as the process that submits it does."""
    module, dot, rest = name.partition(".")
    return f"__main__.{rest}" if dot and module == "__mp_main__" else name


def _ender(token: object, span: trace.Span | None) -> Callable[[BaseException | None, str | None], None]:
    def end(error: BaseException | None, stacktrace: str | None) -> None:
        opentelemetry_context.detach(token)  # type: ignore[arg-type]
        if span is None:
            return
        if error is not None and span.is_recording():
            kind = type_name(type(error))
            span.set_attribute(names.ERROR_TYPE, kind)
            span.record_exception(error, {"exception.stacktrace": stacktrace or ""})
            span.set_status(StatusCode.ERROR, f"{kind}: {error}")
        span.end()

    return end
