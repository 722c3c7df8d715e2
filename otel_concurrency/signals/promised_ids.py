"""Spans whose id was given away before they exist: the one place that knows how the SDK makes ids and spans.

A `Tracer` of the SDK (1.45) asks its own `id_generator` for each span's id, and hands its spans a reference
to its `span_processor`. Everything else about a span, whether it is sampled, its limits, its resource, who
hears of it, is left to the tracer. Where a tracer is built differently, no id is ever promised.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, SpanContext, TracerProvider
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.signals.names import SCOPE_NAME, TASK_NAME


class PromisedIds(IdGenerator):
    """Makes ids as another generator does, but for the one that was promised.

    Args:
        generator: The tracer's own.

    Attributes:
        next: `span_id` of it is the id of the next span that this thread starts; 0: nothing is promised.
    """

    def __init__(self, generator: IdGenerator) -> None:
        self.generator = generator
        self.next = threading.local()

    def generate_span_id(self) -> int:
        """Return what was promised, once, or else a new id."""
        promised: int = getattr(self.next, "span_id", 0)
        if promised:
            self.next.span_id = 0
            return promised
        return self.generator.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return a new id."""
        return self.generator.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Whether the other generator's are."""
        return self.generator.is_trace_id_random()


class PromisingTracer:
    """Our tracer of a provider, able to start a span with an id that somebody knows already.

    Args:
        provider: The SDK's.

    Raises:
        TypeError: Its tracers do not make ids as this module knows it.
    """

    def __init__(self, provider: TracerProvider) -> None:
        tracer: Any = provider.get_tracer(SCOPE_NAME, __version__)
        generator = getattr(tracer, "id_generator", None)
        if not isinstance(generator, IdGenerator) or not hasattr(tracer, "span_processor"):
            raise TypeError(f"{type(tracer)!r} is no tracer whose spans can be promised")
        if not isinstance(generator, PromisedIds):
            generator = tracer.id_generator = PromisedIds(generator)
        self._tracer = tracer
        self._ids = generator
        self._next = generator.next
        self.new_id = generator.generator.generate_span_id
        """Returns the id of a span to come."""
        self.span_processor = tracer.span_processor

    def promise(self, enclosing: SpanContext, span_id: int = 0) -> SpanContext:
        """Return the ids of a span to come, in the trace of another one.

        Args:
            enclosing: The other one's.
            span_id: Its own, if that is known.
        """
        return SpanContext(
            enclosing.trace_id,
            span_id or self.new_id(),
            False,
            enclosing.trace_flags,
            enclosing.trace_state,
        )

    def start(
        self,
        promised: int | None,
        name: str,
        context: Context,
        start_unix_ns: int,
        attributes: Mapping[str, AnyValue],
        links: Sequence[Link] = (),
    ) -> trace.Span:
        """Start a span, with the id that was promised if one was.

        Args:
            promised: Its id.
            name: Of the span.
            context: What was current where it began.
            start_unix_ns: When that was.
            attributes: What it has when it ends; a sampler goes by its name.
            links: Spans that it belongs to in another way.
        """
        self._next.span_id = promised or 0
        try:
            span: trace.Span = self._tracer.start_span(name, context, links=links, start_time=start_unix_ns)
        finally:
            self._next.span_id = 0  # a tracer that is switched off asks for none
        _add(span, attributes)
        return span


def _add(span: Any, attributes: Mapping[str, AnyValue]) -> None:
    held = getattr(span, "_attributes", None)
    if type(held) is BoundedAttributes and held.max_value_len is None:
        has, most = held._dict, held.maxlen
        if most is None or len(has) + len(attributes) <= most:
            # The SDK checks and locks for each value that is set, 0.7 µs apiece; ours are clean.
            has.pop(TASK_NAME, None)  # of whoever happens to run when the span is made
            has.update(attributes)
            return
    span.set_attributes(attributes)


def processor_of(span: object) -> object:
    """Return what hears of a span's end; None where a span does not tell."""
    return getattr(span, "_span_processor", None)


def current_provider() -> TracerProvider | None:
    """Return the global provider if somebody has set one; asking the API would make one."""
    provider: TracerProvider | None = getattr(trace, "_TRACER_PROVIDER", None)
    return provider
