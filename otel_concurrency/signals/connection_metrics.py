"""Connection pools as metrics, by the names of the semantic conventions (`db.client.connection.*`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from otel_concurrency.probes.connections import ConnectionLevel, ConnectionRow
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading, Labels, Reading, SumReading

_Levels = Iterable[tuple[str, ConnectionLevel]]


class ConnectionRows(Protocol):
    """What we read of a connection probe."""

    def read(self) -> list[ConnectionRow]:
        """Return a row for each name of pools, and drain the exemplars into them."""
        ...

    def levels(self) -> list[tuple[str, ConnectionLevel]]:
        """Return the name of each live pool, and how full it is."""
        ...


class ConnectionMetrics:
    """A source with everything that a connection probe keeps, and with the levels of live pools.

    Timeouts are there from a pool's beginning on, so that their rate has one; the times once there are any.

    Args:
        probe: Read at each collection; all readers together see each of its exemplars once.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, probe: ConnectionRows, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._probe = probe
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<ConnectionMetrics of {self._probe!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: the probe was reset."""
        self.start_unix_ns = self._clock()

    def collect(self) -> list[Reading]:
        """Read the probe and the pools once."""
        return [*_level_readings(self._probe.levels()), *_row_readings(self._probe.read())]


def _level_readings(levels: _Levels) -> list[Reading]:
    connections: dict[tuple[str, str], int] = {}
    others: dict[names.Instrument, dict[str, int]] = {
        names.CONNECTION_MAX: {},
        names.CONNECTION_IDLE_MIN: {},
        names.CONNECTION_IDLE_MAX: {},
        names.CONNECTION_PENDING: {},
    }
    for pool, level in levels:
        for state, count in (("used", level.used), ("idle", level.idle)):
            if count is not None:
                connections[pool, state] = connections.get((pool, state), 0) + count
        numbers = (level.limit, level.idle_min, level.idle_max, level.pending)
        for totals, number in zip(others.values(), numbers, strict=True):
            if number is not None:
                totals[pool] = totals.get(pool, 0) + number
    counted: list[tuple[Labels, int]] = [
        ({**_labels(pool), names.CONNECTION_STATE: state}, count)
        for (pool, state), count in connections.items()
    ]
    return [
        SumReading(names.CONNECTION_COUNT, counted),
        *(
            SumReading(instrument, [(_labels(pool), number) for pool, number in totals.items()])
            for instrument, totals in others.items()
        ),
    ]


def _row_readings(rows: Iterable[ConnectionRow]) -> list[Reading]:
    timeouts: list[tuple[Labels, int]] = []
    times: dict[names.Instrument, list[tuple[Labels, HistogramState]]] = {
        names.CONNECTION_WAIT_TIME: [],
        names.CONNECTION_USE_TIME: [],
        names.CONNECTION_CREATE_TIME: [],
    }
    for row in rows:
        labels = _labels(row.name)
        timeouts.append((labels, row.timeouts))
        states = (row.wait_times, row.use_times, row.create_times)
        for points, state in zip(times.values(), states, strict=True):
            if state.count:
                points.append((labels, state))
    return [
        SumReading(names.CONNECTION_TIMEOUTS, timeouts),
        *(HistogramReading(instrument, points) for instrument, points in times.items()),
    ]


def _labels(pool: str) -> dict[str, str]:
    return {names.CONNECTION_POOL: pool}
