"""What a span of ours does that has another one behind it: all of it goes there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanContext, Status, StatusCode
from opentelemetry.util.types import AnyValue, Attributes


class Forwarding:
    """The methods of a span that write to it, but for those that tell its ids.

    Attributes:
        _real: The span that is written to.
    """

    __slots__ = ()

    _real: Any

    def end(self, end_time: int | None = None) -> None:
        """End that span."""
        self._real.end(end_time)

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        """Write to it, as all that follow."""
        self._real.set_attributes(attributes)

    def set_attribute(self, key: str, value: AnyValue) -> None:
        self._real.set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self._real.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._real.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._real.update_name(name)

    def is_recording(self) -> bool:
        is_recording: bool = self._real.is_recording()
        return is_recording

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._real.set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._real.record_exception(exception, attributes, timestamp, escaped)
