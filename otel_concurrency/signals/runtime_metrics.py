"""What CPython and the operating system keep from the program: garbage collection, the GIL, CPU quota."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, Labels, Reading, SumReading

_NOTHING: Labels = {}


class GcRows(Protocol):
    """What we read of the garbage collector's probe."""

    def read(self) -> Sequence[HistogramState]:
        """Return the durations of all pauses, one state a generation."""
        ...


class GilNumbers(Protocol):
    """What we read of the lock's probe."""

    wait_ns: int
    probes: int

    def max_ns(self) -> int:
        """Return the longest wait of the last minute, ns."""
        ...


class RuntimeMetrics:
    """A source with the pauses of the garbage collector, the waits for the GIL, and throttling.

    Args:
        gc_pauses: Counts collections.
        gil: Counts waits.
        throttled_ns: Returns for how long the CPU quota was used up; None where nobody tells.
        has_gil: Whether there is such a lock, now.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(
        self,
        gc_pauses: GcRows,
        gil: GilNumbers,
        throttled_ns: Callable[[], int | None],
        *,
        has_gil: Callable[[], bool],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._gc_pauses = gc_pauses
        self._gil = gil
        self._throttled_ns = throttled_ns
        self._has_gil = has_gil
        self._clock = clock
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<RuntimeMetrics of {self._gc_pauses!r} and {self._gil!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: the probes were reset."""
        self.start_unix_ns = self._clock()

    def collect(self) -> list[Reading]:
        """Read everything once."""
        has_gil = self._has_gil()
        pauses = [
            ({names.GC_GENERATION: generation}, state)
            for generation, state in enumerate(self._gc_pauses.read())
            if state.count
        ]
        readings: list[Reading] = [
            HistogramReading(names.GC_PAUSE_DURATION, pauses),
            GaugeReading(names.GIL_ENABLED, [(_NOTHING, int(has_gil))]),
        ]
        if has_gil and self._gil.probes:
            readings += [
                SumReading(names.GIL_WAIT_TIME, [(_NOTHING, self._gil.wait_ns)]),
                SumReading(names.GIL_PROBES, [(_NOTHING, self._gil.probes)]),
                GaugeReading(names.GIL_WAIT_MAX, [(_NOTHING, self._gil.max_ns())]),
            ]
        throttled_ns = self._throttled_ns()
        if throttled_ns is not None:
            readings.append(SumReading(names.CPU_THROTTLED_TIME, [(_NOTHING, throttled_ns)]))
        return readings
