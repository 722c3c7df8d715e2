"""How full queues are, of those that were made in one place together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from otel_concurrency.probes.waits import WaitNames


class QueueLevel(NamedTuple):
    """The queues of one name.

    Attributes:
        name: Where they were made; `OTHER` beyond `waits.MAX_NAMES`.
        size: Items in them.
        limit: Items that they may hold; None if none of them has a limit.
    """

    name: str
    size: int
    limit: int | None


def queue_levels(queues: Iterable[tuple[Any, str]], names: WaitNames) -> list[QueueLevel]:
    """Return how full queues are; one whose own methods raise is left out.

    Args:
        queues: Each with where it was made.
        names: Those that are told apart.
    """
    levels: dict[str, QueueLevel] = {}
    for queue, site in queues:
        try:
            size, limit = int(queue.qsize()), int(queue.maxsize)
        except Exception:  # of a subclass, in the middle of something
            continue
        name = names.known_as(site)
        before = levels.get(name, QueueLevel(name, 0, None))
        levels[name] = QueueLevel(
            name, before.size + size, (before.limit or 0) + limit if limit > 0 else before.limit
        )
    return list(levels.values())
