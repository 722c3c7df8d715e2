"""A wait for a connection of a pool, told where it was: to the request, and by its span if it was long.

Databases' pools and HTTP clients' are told alike. Only who really waited comes here.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.trace import INVALID_SPAN, Span
from opentelemetry.util.types import AnyValue

from otel_concurrency.probes.account import ATTRIBUTE, Account
from otel_concurrency.signals import names
from otel_concurrency.signals.current_context import SPAN_KEY, get_current
from otel_concurrency.signals.request_times import NS

LONG_NS = 10_000_000
"""Shorter waits are no event of a span."""


def tell_wait(what: int, ns: int, attributes: Mapping[str, AnyValue]) -> None:
    """Tell the request and the span that are current here of a wait that has just ended.

    Args:
        what: An index of `WAITED_FOR`.
        ns: How long it was.
        attributes: Of the event: which pool it was, or which server.
    """
    span: Span = get_current().get(SPAN_KEY, INVALID_SPAN)  # type: ignore[assignment]
    account: Account | None = getattr(span, ATTRIBUTE, None)
    if account is not None:
        account.add_wait(what, ns)
    if ns >= LONG_NS and span.is_recording():
        span.add_event(names.POOL_WAIT, {names.POOL_WAIT_TIME: ns / NS, **attributes})
