"""How full queues are, of those that were made in one place together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from otel_concurrency.probes.waits import MAX_NAMES, OTHER


class QueueLevel(NamedTuple):
    """The queues of one name.

    Attributes:
        name: Where they were made; `OTHER` beyond `MAX_NAMES`.
        size: Items in them.
        limit: Items that they may hold; None if none of them has a limit.
    """

    name: str
    size: int
    limit: int | None


class QueueNames:
    """The first names that come stay; what is beyond goes by one name."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def known_as(self, name: str) -> str:
        """Return the name to count by."""
        if name not in self._names:
            if len(self._names) >= MAX_NAMES:
                return OTHER
            self._names.add(name)
        return name

    def levels(self, queues: Iterable[tuple[Any, str]]) -> list[QueueLevel]:
        """Return how full queues are, each given with where it was made.

        A queue whose own methods raise is left out.
        """
        levels: dict[str, QueueLevel] = {}
        for queue, site in queues:
            try:
                size, limit = int(queue.qsize()), int(queue.maxsize)
            except Exception:  # of a subclass, in the middle of something
                continue
            name = self.known_as(site)
            before = levels.get(name, QueueLevel(name, 0, None))
            levels[name] = QueueLevel(
                name, before.size + size, (before.limit or 0) + limit if limit > 0 else before.limit
            )
        return list(levels.values())
