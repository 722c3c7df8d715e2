"""A work probe's rows, and how full the pools are, as metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.work import PoolLevel, PoolRow
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading, Labels, Reading, SumReading

_logger = logging.getLogger(__name__)

ReadLevels = Callable[[], Iterable[PoolLevel]]

_Totals = list[tuple[Labels, int]]
_Distributions = list[tuple[Labels, HistogramState]]


class WorkRows(Protocol):
    """What we read of a work probe."""

    def read(self) -> Sequence[PoolRow]:
        """Return one row per pool name and kind, and drain the exemplars into them."""
        ...


class WorkMetrics:
    """A source with everything that a work probe counts, and with the levels of live pools.

    `submitted` and `completed` with outcome `finished` are there from a pool's first work item on, so that
    their rates have a beginning; the others once they happened.

    Args:
        probe: Read at each collection; all readers together see each of its exemplars once.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, probe: WorkRows, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._probe = probe
        self._levels: tuple[ReadLevels, ...] = ()
        self._failed: set[ReadLevels] = set()
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<WorkMetrics of {self._probe!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: the probe was reset."""
        self.start_unix_ns = self._clock()

    def unfinished(self) -> int:
        """Count the work items that run, or wait, in live pools that can tell."""
        return sum((level.active or 0) + (level.queued or 0) for level in self.read_levels())

    def watch(self, read_levels: ReadLevels) -> Callable[[], None]:
        """Ask this for the levels of live pools at each collection; returns what takes it back."""
        self._levels = (*self._levels, read_levels)

        def forget() -> None:
            self._levels = tuple(each for each in self._levels if each is not read_levels)

        return forget

    def collect(self) -> list[Reading]:
        """Read the probe and the pools once."""
        return [*_level_readings(self.read_levels()), *_work_readings(self._probe.read())]

    def read_levels(self) -> list[PoolLevel]:
        """Return how full live pools are; what cannot be read is missing, and said once."""
        levels: list[PoolLevel] = []
        for read_levels in self._levels:
            try:
                levels += read_levels()
            except Exception:
                if read_levels not in self._failed:
                    self._failed.add(read_levels)
                    _logger.exception(
                        "%r failed, and the levels of its pools are missing; said once", read_levels
                    )
        return levels


def _pool(row: PoolRow | PoolLevel) -> dict[str, str]:
    return {names.EXECUTOR_TYPE: row.kind, names.EXECUTOR_NAME: row.name}


def _level_readings(levels: Iterable[PoolLevel]) -> list[Reading]:
    workers: dict[tuple[str, str, str], int] = {}
    limits: dict[tuple[str, str], int] = {}
    queued: dict[tuple[str, str], int] = {}
    for level in levels:
        key = (level.kind, level.name)
        for state, count in (("active", level.active), ("idle", level.idle)):
            if count is not None:
                place = (level.kind, level.name, state)
                workers[place] = workers.get(place, 0) + count
        if level.limit is not None:
            limits[key] = limits.get(key, 0) + level.limit
        if level.queued is not None:
            queued[key] = queued.get(key, 0) + level.queued
    return [
        SumReading(names.WORKER_COUNT, _labelled(workers, names.WORKER_STATE)),
        SumReading(names.WORKER_LIMIT, _labelled(limits)),
        SumReading(names.EXECUTOR_QUEUE_SIZE, _labelled(queued)),
    ]


def _labelled(counts: dict[tuple[str, str, str], int] | dict[tuple[str, str], int], *more: str) -> _Totals:
    keys = (names.EXECUTOR_TYPE, names.EXECUTOR_NAME, *more)
    return [(dict(zip(keys, values, strict=True)), count) for values, count in counts.items()]


def _work_readings(rows: Iterable[PoolRow]) -> list[Reading]:
    submitted: _Totals = []
    completed: _Totals = []
    rejected: _Totals = []
    abandoned: _Totals = []
    unretrieved: _Totals = []
    crashes: _Totals = []
    queue_durations: _Distributions = []
    durations: _Distributions = []
    transfer_durations: _Distributions = []
    for row in rows:
        pool = _pool(row)
        if row.submitted:
            submitted.append((pool, row.submitted))
            completed += _completed(row, pool)
        for totals, total in ((rejected, row.rejected), (abandoned, row.abandoned)):
            if total:
                totals.append((pool, total))
        unretrieved += (({**pool, names.ERROR_TYPE: kind}, total) for kind, total in row.unretrieved.items())
        crashes += (({**pool, names.CRASH_REASON: why}, total) for why, total in row.crashes.items())
        for distributions, state in (
            (queue_durations, row.queue_times),
            (transfer_durations, row.transfer_times),
        ):
            if state.count:
                distributions.append((pool, state))
        durations += (
            ({**pool, names.CODE_FUNCTION_NAME: function}, state)
            for function, state in row.run_times.items()
            if state.count
        )
    return [
        SumReading(names.WORK_SUBMITTED, submitted),
        SumReading(names.WORK_COMPLETED, completed),
        SumReading(names.WORK_REJECTED, rejected),
        SumReading(names.WORK_ABANDONED, abandoned),
        SumReading(names.WORK_UNRETRIEVED, unretrieved),
        HistogramReading(names.WORK_QUEUE_DURATION, queue_durations),
        HistogramReading(names.WORK_DURATION, durations),
        HistogramReading(names.WORK_TRANSFER_DURATION, transfer_durations),
        SumReading(names.WORKER_CRASHES, crashes),
    ]


def _completed(row: PoolRow, pool: dict[str, str]) -> Iterable[tuple[Labels, int]]:
    yield {**pool, names.EXECUTOR_TASK_OUTCOME: "finished"}, row.finished
    if row.cancelled:
        yield {**pool, names.EXECUTOR_TASK_OUTCOME: "cancelled"}, row.cancelled
    for error_type, total in row.failed.items():
        yield {**pool, names.EXECUTOR_TASK_OUTCOME: "failed", names.ERROR_TYPE: error_type}, total
