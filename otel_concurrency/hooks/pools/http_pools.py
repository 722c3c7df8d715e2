"""What the hooks of HTTP clients share: which pools there are, and how to tell of a wait for a connection."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from otel_concurrency.hooks.threads.pool_items import creation_site
from otel_concurrency.hooks.weak_ids import WeakIds
from otel_concurrency.probes.http_pools import HttpPoolLevel, Server, ServerLevel

_MACHINERY = (
    "aiohttp.",
    "httpx.",
    "httpx2.",
    "httpcore.",
    "httpcore2.",
    "otel_concurrency.hooks.",
    "contextlib.",
)

_logger = logging.getLogger(__name__)


class Waited(Protocol):
    """Who hears of each wait for a connection, where it was, right after it; must not raise."""

    def __call__(self, server: Server, ns: int, *, timed_out: bool) -> object:
        """Take note of a wait.

        Args:
            server: What the connection was to lead to.
            ns: How long it was.
            timed_out: Whether it ended because it took too long.
        """
        ...


class KnownPools:
    """The pools that were made since somebody looked, and that are still there.

    They stay known in a forked child, which has a copy of each.
    """

    def __init__(self) -> None:
        self._known: WeakIds[str] = WeakIds()
        self._has_failed = False
        self.clear = self._known.clear

    def __repr__(self) -> str:
        return f"<KnownPools [{len(self._known)}]>"

    def add(self, pool: object) -> None:
        """Remember a pool that is being made, weakly, and who makes it."""
        try:
            self._known.put(pool, creation_site(pool, _MACHINERY))
        except Exception:
            self._log_once()

    def read(self, level: Callable[[Any, str], HttpPoolLevel | None]) -> list[HttpPoolLevel]:
        """Return how full each is.

        Args:
            level: Reads one pool of a name; called from any thread. None: it is closed.
        """
        levels = []
        for pool, name in self._known.items():
            try:
                read = level(pool, name)
            except Exception:
                self._log_once()
            else:
                if read is not None:
                    levels.append(read)
        return levels

    def _log_once(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            _logger.exception("A pool of HTTP connections is not measured; said once")


def by_server(
    active: Iterable[Server], idle: Iterable[Server], pending: Iterable[Server]
) -> dict[Server, ServerLevel]:
    """Count connections, and requests that wait for one, by server."""
    counts = [Counter(servers) for servers in (active, idle, pending)]
    return {
        server: ServerLevel(*(count[server] for count in counts))
        for server in dict.fromkeys(server for count in counts for server in count)
    }
