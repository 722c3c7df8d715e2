"""Connection pools of HTTP clients as metrics: how full they are, and how long requests waited for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from otel_concurrency.probes.http_pools import HttpPoolLevel, HttpPoolProbe, Server, ServerRow
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading, Reading, SumReading

ReadLevels = Callable[[], Iterable[HttpPoolLevel]]

_Key = tuple[tuple[str, str | int], ...]


class HttpPoolMetrics:
    """A source with all that is known of connection pools of HTTP clients.

    Args:
        probe: Read at each collection; all readers together see each of its exemplars once.
        read_levels: Each tells how full the pools of a library are.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(
        self,
        probe: HttpPoolProbe,
        read_levels: Sequence[ReadLevels],
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self._probe = probe
        self._read_levels = read_levels
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<HttpPoolMetrics of {self._probe!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: the probe was reset."""
        self.start_unix_ns = self._clock()

    def collect(self) -> list[Reading]:
        """Read the probe and the pools once."""
        levels = [level for read in self._read_levels for level in read()]
        return [
            *_level_readings(self._probe.within_limits(levels)),
            *_wait_readings(self._probe.read()),
        ]


def server_labels(server: Server) -> dict[str, str | int]:
    """Return the attributes that tell a server; `_other` has no port."""
    labels: dict[str, str | int] = {names.SERVER_ADDRESS: server.address}
    if server.port is not None:
        labels[names.SERVER_PORT] = server.port
    return labels


def _level_readings(levels: Iterable[HttpPoolLevel]) -> list[Reading]:
    connections: dict[_Key, int] = {}
    pending: dict[_Key, int] = {}
    limits: tuple[dict[_Key, int], ...] = ({}, {}, {})

    def add(totals: dict[_Key, int], count: int, labels: dict[str, str | int]) -> None:
        key = tuple(labels.items())
        totals[key] = totals.get(key, 0) + count

    for level in levels:
        pool: dict[str, str | int] = {names.HTTP_POOL_NAME: level.name}
        for totals, limit in zip(limits, (level.limit, level.limit_per_host, level.idle_limit), strict=True):
            if limit is not None:
                add(totals, limit, pool)
        for server, now in level.servers.items():
            labels = {**server_labels(server), **pool}
            add(connections, now.active, {**labels, names.HTTP_CONNECTION_STATE: "active"})
            add(connections, now.idle, {**labels, names.HTTP_CONNECTION_STATE: "idle"})
            add(pending, now.pending, labels)
    return [
        SumReading(instrument, [(dict(key), count) for key, count in totals.items()])
        for instrument, totals in (
            (names.HTTP_OPEN_CONNECTIONS, connections),
            (names.HTTP_CONNECTION_LIMIT, limits[0]),
            (names.HTTP_CONNECTION_LIMIT_PER_HOST, limits[1]),
            (names.HTTP_CONNECTION_IDLE_LIMIT, limits[2]),
            (names.HTTP_PENDING_REQUESTS, pending),
        )
    ]


def _wait_readings(rows: Iterable[ServerRow]) -> list[Reading]:
    seen = [(server_labels(row.server), row) for row in rows]
    return [
        HistogramReading(names.HTTP_CONNECTION_WAIT_TIME, [(labels, row.waits) for labels, row in seen]),
        SumReading(
            names.HTTP_CONNECTION_TIMEOUTS, [(labels, row.timeouts) for labels, row in seen if row.timeouts]
        ),
    ]
