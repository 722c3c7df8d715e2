"""The requests that HTTP servers of this process are at work on: who is open, since when, in which task.

Nothing here keeps a request or its task alive: an entry lives in the frame that serves its request.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

MAX_OPEN = 10_000
"""Requests known at a time; those beyond are served unseen."""


class OpenRequest:
    """One request, from the first call of the framework to the end of the response, or to its cancellation.

    Attributes:
        began_ns: When it came, by `time.monotonic_ns`.
        request: The framework's own idea of it.
        task: Weak reference to the asyncio task that serves it; None elsewhere.
        origin: Value of the origin variable when it came.
    """

    __slots__ = ("__weakref__", "began_ns", "origin", "request", "task")

    def __init__(self, began_ns: int, request: Any, task: weakref.ref[Any] | None, origin: object) -> None:
        self.began_ns = began_ns
        self.request = request
        self.task = task
        self.origin = origin


class ActiveRequests:
    """Knows them.

    Args:
        origin: Context variable whose value each keeps.
        max_open: Requests known at a time.
        monotonic_ns: The clock.
    """

    def __init__(
        self,
        origin: ContextVar[Any] | None = None,
        *,
        max_open: int = MAX_OPEN,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._origin = origin
        self._max_open = max_open
        self._now_ns = monotonic_ns
        self._open: dict[int, weakref.ref[OpenRequest]] = {}
        self.forget = self._open.clear

    def __repr__(self) -> str:
        return f"<ActiveRequests [{len(self._open)} open]>"

    def begin(self, request: Any) -> OpenRequest:
        """Take note of a request that comes, in the task that serves it; keep what is returned, for `end`."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # of no event loop of asyncio
            task = None
        opened = OpenRequest(
            self._now_ns(),
            request,
            None if task is None else weakref.ref(task),
            None if self._origin is None else self._origin.get(None),
        )
        if len(self._open) < self._max_open:
            self._open[id(opened)] = weakref.ref(opened)
        return opened

    def end(self, opened: OpenRequest) -> None:
        """It is over, however it ended."""
        self._open.pop(id(opened), None)

    def read(self) -> list[OpenRequest]:
        """Return those that are open, the oldest first; from any thread. Do not keep them."""
        return [opened for reference in list(self._open.values()) if (opened := reference()) is not None]
