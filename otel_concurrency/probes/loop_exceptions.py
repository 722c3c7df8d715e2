"""What event loops report to their exception handler, counted by what it is about."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping

from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.tasks import OTHER

MAX_PENDING = 1_000
"""Reports that wait to be added up; the next one then does it."""

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
        self._max_error_types = max_error_types
        self.reset()

    def note(self, loop: object, context: object) -> None:
        """Count one report; never raises."""
        try:
            report: Mapping[str, object] = context if isinstance(context, dict) else {}
            error = report.get("exception")
            error_type = type_name(type(error)) if isinstance(error, BaseException) else ""
            self._pending.append((*self._loop_of(loop), what_about(report), error_type))
            if len(self._pending) > MAX_PENDING:
                self._add_up()
        except Exception:
            self.lost += 1

    def read(self) -> dict[Key, int]:
        """Return the totals."""
        self._add_up()
        return dict(self._counts)

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self._pending: deque[Key] = deque()
        self._counts: dict[Key, int] = {}
        self._error_types: set[str] = set()
        self.lost = 0

    def _add_up(self) -> None:
        if not self._lock.acquire(blocking=False):  # somebody is at it, perhaps this very thread
            return
        try:
            while self._pending:
                loop_id, loop_type, what, error_type = self._pending.popleft()
                if error_type and error_type not in self._error_types:
                    if len(self._error_types) >= self._max_error_types:
                        error_type = OTHER
                    else:
                        self._error_types.add(error_type)
                key = (loop_id, loop_type, what, error_type)
                self._counts[key] = self._counts.get(key, 0) + 1
        finally:
            self._lock.release()
