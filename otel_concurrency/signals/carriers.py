"""Context on its way to another process: W3C trace context and baggage, as a plain dict of text.

The global propagator decides what travels (`OTEL_PROPAGATORS`), so B3 and Jaeger headers work as well.
"""

from __future__ import annotations

import contextvars
import logging
import weakref
from collections.abc import Mapping

from opentelemetry import context as opentelemetry_context
from opentelemetry import propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_concurrency.signals import request_id
from otel_concurrency.signals.current_context import get_current

_PURE = (TraceContextTextMapPropagator, W3CBaggagePropagator, request_id.RequestIdPropagator)

_logger = logging.getLogger(__name__)
_told = False

# What was asked for last, and the answer: a thousand items of one call ask a thousand times. Each is replaced
# as a whole, so that threads that race get an answer of their own question, or make one.
_captured: tuple[weakref.ref[Context], TextMapPropagator, dict[str, str]] | None = None
_extracted: tuple[dict[str, str], TextMapPropagator, Context] | None = None


def capture() -> dict[str, str]:
    """Return what the current context has to carry; empty where there is nothing.

    Never raises: a propagator that does costs its own headers, and one log record a process.
    """
    global _captured
    current = get_current()
    if not current:  # no span, no baggage: the common case of a program that traces nothing here
        return {}
    propagator = propagate.get_global_textmap()
    last = _captured
    if last is not None and last[0]() is current and last[1] is propagator:
        return last[2].copy()
    carrier: dict[str, str] = {}
    try:
        propagate.inject(carrier, current)
    except Exception:
        _tell_once("A propagator failed to inject; this work goes on without all of its context")
    request_id.carry(current, carrier)
    carrier = {key: text for key, text in carrier.items() if isinstance(key, str) and isinstance(text, str)}
    if _is_pure(propagator):
        _captured = weakref.ref(current), propagator, carrier.copy()
    return carrier


def extract(carrier: Mapping[str, str]) -> Context:
    """Return the OpenTelemetry context that a carrier says; never raises.

    Args:
        carrier: What `capture` returned, here or in another process; empty means no span and no baggage.
    """
    global _extracted
    if not carrier:
        return Context()
    propagator = propagate.get_global_textmap()
    last = _extracted
    if last is not None and last[0] == carrier and last[1] is propagator:
        return last[2]
    try:
        extracted = propagate.extract(carrier, Context())
    except Exception:
        _tell_once("A propagator failed to extract; this work goes on without its context")
        return Context()
    if _is_pure(propagator):
        _extracted = dict(carrier), propagator, extracted
    return extracted


def _is_pure(propagator: TextMapPropagator) -> bool:
    """Whether the same question has the same answer: known of W3C's two and of ours."""
    return type(propagator) is CompositePropagator and all(
        type(each) in _PURE for each in propagator._propagators
    )


def restore(carrier: Mapping[str, str]) -> contextvars.Context:
    """Return a copy of the current context, in which OpenTelemetry's own is what a carrier says.

    What OpenTelemetry had in the current context does not shine through: a worker that was forked inside a
    span must not lend that span to every item that it runs later.

    Args:
        carrier: As `extract` takes it.
    """
    restored = contextvars.copy_context()
    restored.run(opentelemetry_context.attach, extract(carrier))
    return restored


def _tell_once(message: str) -> None:
    global _told
    if not _told:
        _told = True
        _logger.exception(message)
