"""The id of a request, as people write it into tickets: from its header, or made here.

It lies in OpenTelemetry's context beside the span, so it goes wherever that goes: into tasks, threads, pools
and other processes, and it is over when the request's context is left. A propagator takes it in, the one
place through which every server instrumentor passes, whatever the framework; a request that is not sampled
has its id, too.
"""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.signals.current_context import attach, get_current
from otel_concurrency.signals.names import REQUEST_ID

MAX_LENGTH = 128
"""A longer id in a header is taken for none."""

_KEY = "otel_concurrency.request_id"  # in OpenTelemetry's context
_BAGGAGE = "request_id"

_logger = logging.getLogger(__name__)
_installed: RequestIdPropagator | None = None


class RequestIdPropagator(TextMapPropagator):
    """Takes a request's id from its headers; makes one where a server hands them over without.

    Args:
        header: Name of the header.
        in_baggage: Whether the id goes along in outgoing baggage, and is taken from incoming baggage.
    """

    def __init__(self, header: str, *, in_baggage: bool) -> None:
        self.header = header
        self.in_baggage = in_baggage

    def __repr__(self) -> str:
        return f"<RequestIdPropagator {self.header}>"

    def extract(
        self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter
    ) -> Context:
        """Return the context with the request's id."""
        if context is None:
            context = get_current()
        try:
            given = getter.get(carrier, self.header)
            found = _usable(given if given is None or isinstance(given, str) else next(iter(given), None))
        except Exception:  # a getter that knows its own headers only must not cost a request
            return context
        if found is None and self.in_baggage:
            found = _usable(baggage.get_baggage(_BAGGAGE, context))
        # A plain dict is no request: nobody but servers and consumers has a getter of their own.
        if found is None and getter is not default_getter and _KEY not in context:
            found = f"{random.getrandbits(128):032x}"  # seeded anew in forked children
        return context if found is None else self.placed(found, context)

    def inject(
        self, carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter
    ) -> None:
        """Add nothing: what is sent to others is theirs to ask for, by `in_baggage`."""

    @property
    def fields(self) -> set[str]:
        """Return the headers that `inject` sets: none."""
        return set()

    def placed(self, request_id: str, context: Context) -> Context:
        """Return a context with this id."""
        if self.in_baggage:
            context = baggage.set_baggage(_BAGGAGE, request_id, context)
        return Context({**context, _KEY: request_id})


def install(header: str, *, in_baggage: bool) -> Callable[[], None]:
    """Join the global propagator, and each that the program sets later; returns what takes ours out again."""
    global _installed
    ours = _installed = RequestIdPropagator(header, in_baggage=in_baggage)
    joined = _Joined(ours)
    propagate.set_global_textmap(joined.with_ours(propagate.get_global_textmap()))
    patch = Patch(propagate, "set_global_textmap", switched(joined.setting))
    patch.install()

    def leave() -> None:
        global _installed
        patch.remove()
        propagate.set_global_textmap(joined.without_ours(propagate.get_global_textmap()))
        _installed = None

    return leave


class _Joined:
    """The propagators that have ours among them."""

    def __init__(self, ours: RequestIdPropagator) -> None:
        self._ours = ours
        # What stands there for whom: a composite for itself, any other has one made around it.
        self._wholes: weakref.WeakKeyDictionary[CompositePropagator, TextMapPropagator | None] = (
            weakref.WeakKeyDictionary()
        )

    def with_ours(self, theirs: TextMapPropagator) -> TextMapPropagator:
        if not isinstance(theirs, TextMapPropagator):
            return theirs
        whole = theirs if isinstance(theirs, CompositePropagator) else CompositePropagator([theirs])
        if all(each is not self._ours for each in whole._propagators):
            whole._propagators = [*whole._propagators, self._ours]
            self._wholes[whole] = None if whole is theirs else theirs
        return whole

    def without_ours(self, current: TextMapPropagator) -> TextMapPropagator:
        """Leave them all; returns whom the current one stands for."""
        theirs = self._wholes.get(current) if isinstance(current, CompositePropagator) else None
        for whole in list(self._wholes):
            whole._propagators = [each for each in whole._propagators if each is not self._ours]
        self._wholes.clear()
        return current if theirs is None else theirs

    def setting(self, original: Callable[..., None], switch: Switch) -> Callable[..., None]:
        def set_global_textmap(http_text_format: TextMapPropagator) -> None:
            whole = http_text_format
            if switch.is_on:
                try:
                    whole = self.with_ours(http_text_format)
                except Exception:  # one that is built differently is the program's, without request ids
                    _logger.debug("Requests get no ids from now on", exc_info=True)
            original(whole)

        return set_global_textmap


def request_id_in(context: Context) -> str | None:
    """Return the request id of a context."""
    found = context.get(_KEY)
    return found if isinstance(found, str) else None


def get_request_id() -> str | None:
    """See `otel_concurrency.get_request_id`."""
    return request_id_in(get_current())


def set_request_id(request_id: str) -> None:
    """See `otel_concurrency.set_request_id`."""
    usable = _usable(request_id)
    if usable is None:
        raise ValueError(f"{request_id!r:.80} is no request id: 1 to {MAX_LENGTH} visible ASCII characters")
    current = get_current()
    attach(Context({**current, _KEY: usable}) if _installed is None else _installed.placed(usable, current))
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute(REQUEST_ID, usable)


def carry(context: Context, carrier: MutableMapping[str, str]) -> None:
    """Write the id into a carrier of ours, which stays among our own processes."""
    found = request_id_in(context)
    if found is not None and _installed is not None:
        carrier[_installed.header] = found


def _usable(given: object) -> str | None:
    """Return the text if it is one that may stand in a log: visible ASCII, and not too long."""
    if isinstance(given, str) and 0 < len(given) <= MAX_LENGTH and given.isascii() and given.isprintable():
        return None if " " in given else given
    return None
