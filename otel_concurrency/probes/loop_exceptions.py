"""What event loops report to their exception handler, counted by what it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from otel_concurrency.probes.event_counts import EventCounts
from otel_concurrency.probes.pure import type_name

_SERVER_WORDS = ("accept", "incoming connection", "client_connected_cb")

Key = tuple[int | None, str, str, str]
"""Loop id, loop type, what it is about, type of the exception or nothing."""


def what_about(context: Mapping[str, object]) -> str:
    """Return what a report to `call_exception_handler` is about, by its message and its keys.

    Source: CPython `asyncio/{futures,tasks,events,base_events,selector_events,streams}.py`, uvloop's too.
    """
    message = context.get("message")
    text = message if isinstance(message, str) else ""
    if text.endswith("exception was never retrieved"):
        is_task = isinstance(context.get("future"), asyncio.Task)
        return "task_never_retrieved" if is_task else "future_never_retrieved"
    if text.startswith("Task was destroyed"):
        return "task_destroyed_pending"
    if "asyncgen" in context:
        return "asyncgen"
    if any(word in text for word in _SERVER_WORDS):
        return "server"
    if "transport" in context or text.startswith("Fatal"):
        return "transport"
    if "handle" in context or text.startswith("Exception in callback"):
        return "callback"
    return "other"


class LoopExceptions:
    """Counts reports. They come from anywhere, also out of a garbage collection: noting one takes no lock.

    Args:
        loop_of: Returns a loop's id and type; takes no lock either.
        max_error_types: Exception type names kept, then `_other`.
    """

    def __init__(
        self, loop_of: Callable[[object], tuple[int | None, str]], *, max_error_types: int = 50
    ) -> None:
        self._loop_of = loop_of
        self._counts = EventCounts(max_names=max_error_types)
        self.lost = 0

    def note(self, loop: object, context: object) -> None:
        """Count one report; never raises."""
        try:
            report: Mapping[str, object] = context if isinstance(context, dict) else {}
            error = report.get("exception")
            error_type = type_name(type(error)) if isinstance(error, BaseException) else ""
            self._counts.add(*self._loop_of(loop), what_about(report), error_type)
        except Exception:
            self.lost += 1

    def read(self) -> dict[Key, int]:
        """Return the totals."""
        counts: dict[Any, int] = self._counts.read()
        return counts

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._counts.reset()
        self.lost = 0
