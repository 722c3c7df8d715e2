"""How long functions took that the program has timed, as a metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from otel_concurrency.probes.function_times import FunctionRow
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading, Labels, Reading


class FunctionRows(Protocol):
    """What `FunctionMetrics` reads."""

    def read(self) -> Iterable[FunctionRow]:
        """Return a row for each function and way to end."""
        ...


class FunctionMetrics:
    """A source with the durations of timed functions.

    Args:
        times: Read at each collection.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, times: FunctionRows, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._times = times
        self._clock = clock
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<FunctionMetrics of {self._times!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: the probe was reset."""
        self.start_unix_ns = self._clock()

    def collect(self) -> list[Reading]:
        """Read every function once."""
        points = [(_labels(row), row.durations) for row in self._times.read()]
        return [HistogramReading(names.FUNCTION_DURATION, points)]


def _labels(row: FunctionRow) -> Labels:
    labels = {names.CODE_FUNCTION_NAME: row.name, names.FUNCTION_OUTCOME: row.outcome}
    return labels if row.error_type is None else {**labels, names.ERROR_TYPE: row.error_type}
