"""Rare events, counted wherever they come from: noting one takes no lock, so a collection may do it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from otel_concurrency.probes.tasks import OTHER

MAX_PENDING = 1_000
"""Events that wait to be added up; the next one then does it."""

Key = tuple[Any, ...]


class EventCounts:
    """Counts events by what is told of them.

    Args:
        max_names: Values kept of the last part of a key, the type of an exception as a rule, then `_other`.
    """

    def __init__(self, *, max_names: int = 50) -> None:
        self._max_names = max_names
        self.reset()

    def __repr__(self) -> str:
        return f"<EventCounts [{sum(self.read().values())} events]>"

    def add(self, *key: Any) -> None:
        """Count one event.

        Args:
            *key: What it is about; last a name, or nothing.
        """
        self._pending.append(key)
        if len(self._pending) > MAX_PENDING:
            self._add_up()

    def read(self) -> dict[Key, int]:
        """Return the totals."""
        self._add_up()
        return dict(self._counts)

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self._pending: deque[Key] = deque()
        self._counts: dict[Key, int] = {}
        self._names: set[str] = set()

    def _add_up(self) -> None:
        if not self._lock.acquire(blocking=False):  # somebody is at it, perhaps this very thread
            return
        try:
            while self._pending:
                *rest, name = self._pending.popleft()
                if name and name not in self._names:
                    if len(self._names) >= self._max_names:
                        name = OTHER
                    else:
                        self._names.add(name)
                key = (*rest, name)
                self._counts[key] = self._counts.get(key, 0) + 1
        finally:
            self._lock.release()
