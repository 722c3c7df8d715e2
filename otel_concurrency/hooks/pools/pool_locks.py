"""The locks by which pools let tasks wait for a connection: who waits for one is told so once, not twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from otel_concurrency.hooks.weak_ids import WeakIds


class PoolLocks:
    """Locks and conditions of asyncio that are inside of connection pools."""

    def __init__(self) -> None:
        self._classes: set[type] = set()
        self._locks: WeakIds[bool] = WeakIds()

    def add_class(self, of_pools: type) -> None:
        """Take note of a class of conditions that only pools use."""
        self._classes.add(of_pools)

    def add(self, locks: Iterable[object]) -> None:
        """Take note of a pool's locks; of a condition's own lock, too."""
        for lock in locks:
            if isinstance(lock, asyncio.Condition):
                self._locks.put(lock, True)
                lock = getattr(lock, "_lock", None)
            if isinstance(lock, asyncio.Lock):
                self._locks.put(lock, True)

    def has(self, lock: object) -> bool:
        """Tell whether a lock or a condition is inside of a pool."""
        return type(lock) in self._classes or self._locks.by_id(id(lock)) is not None

    def clear(self) -> None:
        """Know of none."""
        self._classes.clear()
        self._locks.clear()


POOL_LOCKS = PoolLocks()
"""Those of this process."""
