"""Context on its way to another process: W3C trace context and baggage, as a plain dict of text.

The global propagator decides what travels (`OTEL_PROPAGATORS`), so B3 and Jaeger headers work as well.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Mapping

from opentelemetry import context as opentelemetry_context
from opentelemetry import propagate
from opentelemetry.context import Context

_logger = logging.getLogger(__name__)
_told = False


def capture() -> dict[str, str]:
    """Return what the current context has to carry; empty where there is nothing.

    Never raises: a propagator that does costs its own headers, and one log record a process.
    """
    carrier: dict[str, str] = {}
    current = opentelemetry_context.get_current()
    if not current:  # no span, no baggage: the common case of a program that traces nothing here
        return carrier
    try:
        propagate.inject(carrier, current)
    except Exception:
        _tell_once("A propagator failed to inject; this work goes on without all of its context")
    return {key: value for key, value in carrier.items() if isinstance(key, str) and isinstance(value, str)}


def extract(carrier: Mapping[str, str]) -> Context:
    """Return the OpenTelemetry context that a carrier says; never raises.

    Args:
        carrier: What `capture` returned, here or in another process; empty means no span and no baggage.
    """
    nothing = Context()
    if not carrier:
        return nothing
    try:
        return propagate.extract(carrier, nothing)
    except Exception:
        _tell_once("A propagator failed to extract; this work goes on without its context")
        return nothing


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
