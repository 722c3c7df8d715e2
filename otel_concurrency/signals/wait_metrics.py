"""What tasks wait for of each other, and how full queues are, as metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from otel_concurrency.probes.holds import HoldRow
from otel_concurrency.probes.queues import QueueLevel
from otel_concurrency.probes.waits import WaitRow
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading, Labels, Reading, SumReading


def wait_readings(rows: Iterable[WaitRow]) -> list[Reading]:
    """Return the metrics of all kinds of waits that there were."""
    seen: list[tuple[Labels, WaitRow]] = [(_labels(row), row) for row in rows]
    return [
        SumReading(names.SYNC_CONTENTIONS, [(labels, row.contentions) for labels, row in seen]),
        SumReading(names.SYNC_WAITING, [(labels, row.waiting) for labels, row in seen]),
        SumReading(names.SYNC_WAIT_TIME, [(labels, row.wait_ns) for labels, row in seen]),
        HistogramReading(names.SYNC_WAIT_DURATION, [(labels, row.durations) for labels, row in seen]),
    ]


class Holds(Protocol):
    """What `HoldMetrics` reads."""

    def read_holds(self) -> list[HoldRow]:
        """Return a row for each kind and name."""
        ...


class HoldMetrics:
    """A source with how long locks and semaphores are held.

    Args:
        holds: Read at each collection.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, holds: Holds, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._holds = holds
        self._clock = clock
        self.start_unix_ns = clock()

    def begin(self) -> None:
        """Say that the totals are zero now."""
        self.start_unix_ns = self._clock()

    def collect(self) -> list[Reading]:
        """Read them once."""
        rows = self._holds.read_holds()
        return [HistogramReading(names.SYNC_HOLD_DURATION, [(_labels(row), row.durations) for row in rows])]


class QueueMetrics:
    """A source with how full queues are.

    Args:
        levels: Called at each collection.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(
        self, levels: Callable[[], Iterable[QueueLevel]], *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._levels = levels
        self.start_unix_ns = clock()

    def collect(self) -> list[Reading]:
        """Look at them once."""
        seen: list[tuple[Labels, QueueLevel]] = [
            ({names.QUEUE_NAME: level.name}, level) for level in self._levels()
        ]
        limits = [(labels, level.limit) for labels, level in seen if level.limit is not None]
        return [
            SumReading(names.QUEUE_SIZE, [(labels, level.size) for labels, level in seen]),
            SumReading(names.QUEUE_LIMIT, limits),
        ]


def _labels(row: WaitRow | HoldRow) -> Labels:
    if row.name is None:
        return {names.SYNC_TYPE: row.kind}
    return {names.SYNC_TYPE: row.kind, names.SYNC_NAME: row.name}
