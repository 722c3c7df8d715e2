"""Connection pools, as those tell of them who watch them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from otel_concurrency.probes.connections import ConnectionProbe
from otel_concurrency.probes.http_pools import HttpPoolLevel
from otel_concurrency.snapshot.live import ConnectionHolder, LivePool

MAX_HOLDERS = 10


def database_pools(probe: ConnectionProbe) -> list[LivePool]:
    """Return the pools of databases' clients."""
    now_ns = time.monotonic_ns()
    found = []
    for pool, level in probe.pools():
        longest_ns = max((now_ns - since_ns for since_ns in list(pool.waits.values())), default=None)
        holders = pool.holders(now_ns)[:MAX_HOLDERS]
        found.append(
            LivePool(
                "db",
                pool.name,
                level.used,
                level.idle,
                level.pending,
                level.limit,
                longest_ns / 1e9 if longest_ns is not None else None,
                tuple(ConnectionHolder(each.who, each.held_ns / 1e9) for each in holders),
            )
        )
    return found


def http_pools(levels: Iterable[HttpPoolLevel]) -> list[LivePool]:
    """Return the pools of HTTP clients."""
    return [
        LivePool(
            "http",
            level.name,
            sum(server.active for server in level.servers.values()),
            sum(server.idle for server in level.servers.values()),
            sum(server.pending for server in level.servers.values()),
            level.limit,
        )
        for level in levels
    ]
