"""For how long locks and semaphores are held."""

from __future__ import annotations

import threading
from typing import NamedTuple

from otel_concurrency.probes.histogram import Histogram, HistogramState
from otel_concurrency.probes.waits import KINDS, WaitNames, split


class HoldRow(NamedTuple):
    """What was held, of one kind and name.

    Attributes:
        kind: One of `waits.KINDS`.
        name: What `WaitNames` knows it by; None: unnamed.
        durations: For how long, of what was given back.
    """

    kind: str
    name: str | None
    durations: HistogramState


class HoldTimes:
    """How long each was held that was given back. Any thread may call.

    Args:
        names: Of what is held.
    """

    def __init__(self, names: WaitNames) -> None:
        self._names = names
        self.reset()

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._lock = threading.Lock()
        self._rows: dict[int, Histogram] = {}

    def observe(self, row: int, ns: int) -> None:
        """Count one that was given back, where `waits.row_of` says."""
        with self._lock:
            durations = self._rows.get(row)
            if durations is None:
                durations = self._rows[row] = Histogram()
            durations.observe(ns)

    def read_holds(self) -> list[HoldRow]:
        """Return a row for each kind and name."""
        with self._lock:
            states = [(row, durations.read()) for row, durations in self._rows.items()]
        return [
            HoldRow(KINDS[kind], self._names.name(number), state)
            for row, state in states
            for kind, number in [split(row)]
        ]
