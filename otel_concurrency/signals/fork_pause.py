"""A short pause of gRPC exporters at a fork.

gRPC prepares itself for a fork, but only if no other thread is inside one of its calls at that moment; else
the child may wait for ever in its first call. A fork therefore waits for exports that are under way, and
holds off new ones. A collector that does not answer keeps it for no longer than `PAUSE_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from otel_concurrency.hooks import fork

PAUSE_S = 0.05
"""What a fork may wait for all exporters together."""


class ForkPause:
    """Holds the export locks of gRPC exporters across each fork.

    Args:
        parts: Returns what exports now: parts of the SDK with `_exporter` and `_export_lock`.
    """

    def __init__(self, parts: Callable[[], Iterable[Any]]) -> None:
        self._parts = parts
        self._held: list[Any] = []
        self._undo: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<ForkPause [{'installed' if self._undo else 'removed'}]>"

    def install(self) -> None:
        """Pause at each fork from now on; a second call changes nothing."""
        if not self._undo:
            self._undo = [
                fork.before_fork(self._hold),
                fork.in_parent(self._release),
                fork.in_child(self._forget),
            ]

    def remove(self) -> None:
        """Let forks and exports meet."""
        while self._undo:
            self._undo.pop()()

    def _hold(self) -> None:
        deadline = time.monotonic() + PAUSE_S
        for part in self._parts():
            if hasattr(part._exporter, "_initialize_channel_and_stub"):
                lock = part._export_lock
                if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    self._held.append(lock)

    def _release(self) -> None:
        while self._held:
            self._held.pop().release()

    def _forget(self) -> None:
        self._held = []  # the child has new locks
