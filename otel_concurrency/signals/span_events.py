"""A span event that is told while what it tells of goes on.

The event has to be there before its span ends, and nobody knows when that will be; so it is added early, and
its attributes are brought up to date. The SDK has no public way to do that (`opentelemetry.sdk.trace.Event`,
SDK 1.45); where it is built differently, the event keeps what it was added with.
"""

from __future__ import annotations

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Span
from opentelemetry.util.types import AnyValue


class SpanEvent:
    """An event of a span that is recording.

    Args:
        span: It must not have ended.
        name: Of the event.
        attributes: What is known by now.
        at_unix_ns: When it began, ns since the epoch; told as the span's beginning if that was later.
    """

    def __init__(self, span: Span, name: str, attributes: dict[str, AnyValue], at_unix_ns: int) -> None:
        at_unix_ns = max(at_unix_ns, getattr(span, "start_time", None) or 0)
        span.add_event(name, attributes, at_unix_ns)
        self._event: Event | None = None
        try:
            event = span._events[-1]  # type: ignore[attr-defined]
        except (AttributeError, IndexError, TypeError):
            return
        if isinstance(event, Event) and (event.name, event.timestamp) == (name, at_unix_ns):
            self._event = event

    def amend(self, attributes: dict[str, AnyValue]) -> None:
        """Replace the attributes, also in a span that has ended and was not exported yet."""
        before = None if self._event is None else self._event.attributes
        if self._event is not None and isinstance(before, BoundedAttributes):
            self._event._attributes = BoundedAttributes(
                before.maxlen, attributes, immutable=True, max_value_len=before.max_value_len
            )
