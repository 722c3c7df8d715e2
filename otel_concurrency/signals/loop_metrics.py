"""What event loops do with their time, as metrics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.loop_exceptions import Key
from otel_concurrency.probes.loop_time import LIBUV_TOTALS, UNSEEN, LoopTimeRow
from otel_concurrency.signals import names
from otel_concurrency.signals.loop_labels import loop_labels
from otel_concurrency.signals.names import Instrument
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, Labels, Reading, SumReading

WINDOW_NS = 10_000_000_000
"""How far `asyncio.eventloop.utilization` looks back at least, however often and by how many it is read."""

_SHORTEST_NS = 10_000_000  # a ratio over less says little

_LoopKey = tuple[int | None, str]
_Values = list[tuple[Labels, int]]


class LoopRows(Protocol):
    """What we read of the loops' timers."""

    def read(self) -> Sequence[LoopTimeRow]:
        """Return one row for each id and type."""
        ...


class Utilization:
    """The share of active time since the youngest look that is at least `WINDOW_NS` old, or the first."""

    def __init__(self) -> None:
        self._looks: dict[_LoopKey, deque[tuple[int, int, int]]] = {}

    def add(self, key: _LoopKey, at_ns: int, active_ns: int, idle_ns: int) -> float | None:
        """Look once; return the share of the time that the loop ran, None where it hardly did."""
        looks = self._looks.setdefault(key, deque([(at_ns, 0, 0)]))
        looks.append((at_ns, active_ns, idle_ns))
        # The first is the youngest that is as old as the window: what is older has served.
        while len(looks) > 2 and at_ns - looks[1][0] >= WINDOW_NS:
            looks.popleft()
        _, active_before_ns, idle_before_ns = looks[0]
        active, idle = active_ns - active_before_ns, idle_ns - idle_before_ns
        return active / (active + idle) if active + idle >= _SHORTEST_NS else None


class LoopMetrics:
    """A source with everything that the loops' timers count, and what the loops reported.

    What a loop does not let us see is left out.

    Args:
        times: Read at each collection.
        exceptions: Returns the totals of what loops reported to their exception handlers.
        clock: Wall-clock time, ns since the epoch.
        monotonic: Monotonic time, ns.
    """

    def __init__(
        self,
        times: LoopRows,
        *,
        exceptions: Callable[[], Mapping[Key, int]] = dict,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._times = times
        self._exceptions = exceptions
        self._clock = clock
        self._monotonic = monotonic
        self.begin()

    def __repr__(self) -> str:
        return f"<LoopMetrics of {self._times!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: at first, and after the timers were reset."""
        self.start_unix_ns = self._clock()
        self._utilization = Utilization()

    def collect(self) -> list[Reading]:
        """Read the timers once."""
        rows = self._times.read()
        return [
            *_time_readings([row for row in rows if row.way != UNSEEN]),
            GaugeReading(names.LOOP_UTILIZATION, list(self._shares(rows))),
            *_thread_readings(rows),
            _levels(names.LOOP_QUEUE_SIZE, ((row, row.ready) for row in rows)),
            _levels(names.LOOP_TIMER_COUNT, ((row, row.timers) for row in rows)),
            SumReading(names.LOOP_EXCEPTIONS, list(_exceptions(self._exceptions()))),
        ]

    def _shares(self, rows: Iterable[LoopTimeRow]) -> Iterable[tuple[Labels, float]]:
        now_ns = self._monotonic()
        for row in rows:
            if row.way == UNSEEN:
                continue
            share = self._utilization.add(
                (row.loop_id, row.loop_type), now_ns, row.time.active_ns, row.time.idle_ns
            )
            if share is not None:
                yield loop_labels(row.loop_id, row.loop_type), share


def _time_readings(rows: Iterable[LoopTimeRow]) -> list[Reading]:
    times: _Values = []
    iterations: _Values = []
    durations: list[tuple[Labels, HistogramState]] = []
    delays: list[tuple[Labels, HistogramState]] = []
    events: _Values = []
    for row in rows:
        loop = loop_labels(row.loop_id, row.loop_type)
        for state, ns in (("active", row.time.active_ns), ("idle", row.time.idle_ns)):
            times.append(({**loop, names.LOOP_STATE: state}, ns))
        for kind, count in _iterations(row):
            iterations.append(({**loop, names.ITERATION_KIND: kind}, count))
        if row.way != LIBUV_TOTALS:
            durations.append((loop, row.time.durations))
            delays.append(({**loop, names.DELAY_KIND: "callback"}, row.time.delays))
        events.append((loop, row.time.events))
    return [
        SumReading(names.LOOP_TIME, times),
        SumReading(names.LOOP_ITERATIONS, iterations),
        HistogramReading(names.LOOP_ITERATION_DURATION, durations),
        HistogramReading(names.LOOP_DELAY, delays),
        SumReading(names.LOOP_IO_EVENTS, events),
    ]


def _iterations(row: LoopTimeRow) -> Iterable[tuple[str, int]]:
    if row.way != LIBUV_TOTALS:
        yield "blocking", row.time.blocking
        yield "polling", row.time.polling
        yield "empty", row.time.empty
    if row.time.untold:
        yield "unknown", row.time.untold


def _thread_readings(rows: Iterable[LoopTimeRow]) -> list[Reading]:
    rows = list(rows)
    return [
        _levels(names.LOOP_CPU_TIME, ((row, row.use.cpu_ns) for row in rows)),
        _levels(names.LOOP_RUNQUEUE_TIME, ((row, row.use.runqueue_ns) for row in rows)),
        _levels(names.LOOP_BLOCKED_TIME, ((row, row.use.blocked_ns) for row in rows if row.way != UNSEEN)),
    ]


def _levels(instrument: Instrument, values: Iterable[tuple[LoopTimeRow, int | None]]) -> SumReading:
    return SumReading(
        instrument,
        [(loop_labels(row.loop_id, row.loop_type), value) for row, value in values if value is not None],
    )


def _exceptions(counts: Mapping[Key, int]) -> Iterable[tuple[Labels, int]]:
    for (loop_id, loop_type, what, error_type), count in counts.items():
        labels = {**loop_labels(loop_id, loop_type), names.LOOP_EXCEPTION_CONTEXT: what}
        if error_type:
            labels[names.ERROR_TYPE] = error_type
        yield labels, count
