"""Capacity limiters, as trio and AnyIO have them: they lend a token to each work item for a thread.

There is no pool to look into: as many threads may be at work as there are tokens, 40 where nobody says
otherwise, and whoever finds none waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.weak_ids import WeakIds
from otel_concurrency.probes.work import PoolKind, PoolLevel

DEFAULT = "default"
"""The pool of those who use a loop's default limiter."""
LIMITED = "limited"
"""The pool of those who bring a limiter of their own."""


class Limiters:
    """The limiters that somebody has used and that are still there.

    Args:
        kind: Of the pools that they stand for.
    """

    def __init__(self, kind: PoolKind) -> None:
        self._kind = kind
        self._known: WeakIds[str] = WeakIds()
        self.clear = self._known.clear

    def clear_in_child(self) -> Callable[[], None]:
        """Forget them in forked children, where no borrower is; returns what takes it back."""
        return fork.in_child(self.clear)

    def watch(self, limiter: Any, name: str) -> None:
        """Remember a limiter, weakly."""
        if self._known.by_id(id(limiter)) is None:
            self._known.put(limiter, name)

    def levels(self) -> list[PoolLevel]:
        """Return tokens borrowed, tokens there are, and tasks that wait for one."""
        levels = []
        for limiter, name in self._known.items():
            told = limiter.statistics()
            total = told.total_tokens
            levels.append(
                PoolLevel(
                    name,
                    self._kind,
                    active=told.borrowed_tokens,
                    limit=total if isinstance(total, int) else None,  # may be infinite
                    queued=told.tasks_waiting,
                )
            )
        return levels
