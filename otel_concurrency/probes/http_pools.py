"""Connection pools of HTTP clients: what requests waited for in each, and how full it is at this moment."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from otel_concurrency.probes.histogram import Histogram, HistogramState

OTHER = "_other"
"""The address of every server, and the name of every pool, beyond a table's limit."""

MAX_SERVERS = 50
MAX_POOLS = 32


class Server(NamedTuple):
    """Where a connection leads to, as the URL has it: through whichever proxy."""

    address: str
    port: int | None


_OTHER_SERVER = Server(OTHER, None)


class ServerRow(NamedTuple):
    """All waits for connections to one server, through any pool.

    Attributes:
        server: Or `_other`.
        timeouts: How many of those that waited were told that it takes too long.
        waits: How long each of them waited, until it had a connection or gave up.
    """

    server: Server
    timeouts: int
    waits: HistogramState


class ServerLevel(NamedTuple):
    """What a pool has to do with one server at this moment.

    Attributes:
        active: Open connections that serve a request.
        idle: Open connections that are kept for the next one.
        pending: Requests that wait for a connection.
    """

    active: int = 0
    idle: int = 0
    pending: int = 0


class HttpPoolLevel(NamedTuple):
    """How full a pool is at this moment.

    Attributes:
        name: Where it was made, `module:line`.
        limit: How many connections it may have; None without a limit.
        limit_per_host: The same, for one server; None without such a limit.
        idle_limit: How many it keeps that serve nobody; None without a limit.
        servers: What it has to do with each.
    """

    name: str
    limit: int | None
    limit_per_host: int | None
    idle_limit: int | None
    servers: Mapping[Server, ServerLevel]


class HttpPoolProbe:
    """Counts those that had to wait; who gets a connection at once never comes here.

    Args:
        max_servers: Servers kept apart; further ones share `_other`.
        max_pools: Names of pools kept apart.
    """

    def __init__(self, *, max_servers: int = MAX_SERVERS, max_pools: int = MAX_POOLS) -> None:
        self._max_servers = max_servers
        self._max_pools = max_pools
        self._pools: set[str] = set()
        self.reset()

    def __repr__(self) -> str:
        return f"<HttpPoolProbe [{len(self._servers)} servers]>"

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._lock = threading.Lock()
        self._servers: set[Server] = set()
        self._timeouts: dict[Server, int] = {}
        self._waits: dict[Server, Histogram] = {}

    def waited(
        self,
        server: Server,
        ns: int,
        *,
        timed_out: bool = False,
        origin: object = None,
        at_unix_ns: int = 0,
    ) -> None:
        """Count a wait that is over.

        Args:
            server: What the connection was to lead to.
            ns: How long it was.
            timed_out: Whether it ended because it took too long.
            origin: For an exemplar: what was current there.
            at_unix_ns: When it ended, for an exemplar.
        """
        with self._lock:
            server = self._known(server)
            histogram = self._waits.get(server)
            if histogram is None:
                histogram = self._waits[server] = Histogram()
            histogram.observe(ns, origin, at_unix_ns)
            self._timeouts[server] = self._timeouts.get(server, 0) + timed_out

    def read(self) -> list[ServerRow]:
        """Return a row for each server that somebody waited for, exemplars drained."""
        with self._lock:
            return [
                ServerRow(server, self._timeouts[server], histogram.read())
                for server, histogram in self._waits.items()
            ]

    def peek(self) -> list[ServerRow]:
        """Return the same, exemplars left where they are."""
        with self._lock:
            return [
                ServerRow(server, self._timeouts[server], histogram.peek())
                for server, histogram in self._waits.items()
            ]

    def within_limits(self, levels: Iterable[HttpPoolLevel]) -> list[HttpPoolLevel]:
        """Return levels with no more names and servers in them than are kept apart."""
        with self._lock:
            return [self._bounded(level) for level in levels]

    def _bounded(self, level: HttpPoolLevel) -> HttpPoolLevel:
        name = level.name
        if name not in self._pools:
            if len(self._pools) < self._max_pools:
                self._pools.add(name)
            else:
                name = OTHER
        servers: dict[Server, ServerLevel] = {}
        for server, each in level.servers.items():
            server = self._known(server)
            before = servers.get(server)
            servers[server] = (
                each if before is None else ServerLevel(*map(sum, zip(before, each, strict=True)))
            )
        return level._replace(name=name, servers=servers)

    def _known(self, server: Server) -> Server:
        if server not in self._servers:
            if len(self._servers) >= self._max_servers:
                return _OTHER_SERVER
            self._servers.add(server)
        return server
