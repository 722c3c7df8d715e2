"""How long the garbage collector keeps the program waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from otel_concurrency.probes.histogram import Histogram, HistogramState

GENERATIONS = 3
LONG_PAUSE_NS = 1_000_000
"""Shorter pauses are counted, but not kept as intervals: no stall is their work."""

RECENT_PAUSES = 16


class GcPauses:
    """Counts the pauses of the garbage collector; an entry of `gc.callbacks`.

    It is called inside a collection, wherever that comes: it only reads the clock and adds up. Between
    collections it costs nothing.

    Args:
        clock: Monotonic time, ns.
    """

    _recent: tuple[tuple[int, int], ...]
    _histograms: tuple[Histogram, ...]

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self.reset()

    def __repr__(self) -> str:
        return f"<GcPauses [{self._count}]>"

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Note the beginning or the end of a collection, as `gc` calls it."""
        if phase == "start":
            self._began_ns = self._clock()
            return
        began_ns = self._began_ns
        if not began_ns:  # it began before we were there
            return
        ended_ns = self._clock()
        self._count += 1
        self._histograms[min(info["generation"], GENERATIONS - 1)].observe(ended_ns - began_ns)
        if ended_ns - began_ns >= LONG_PAUSE_NS:  # a new tuple: somebody may be reading the old one
            self._recent = (*self._recent[1 - RECENT_PAUSES :], (began_ns, ended_ns))
        self._began_ns = 0  # nothing in between lets go of the GIL: it is the present one, or a recent one

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._began_ns = 0
        self._count = 0
        self._recent = ()
        self._histograms = tuple(Histogram() for _ in range(GENERATIONS))

    def read(self) -> list[HistogramState]:
        """Return the durations of all pauses so far, one state a generation."""
        states: list[HistogramState] = []
        for _ in range(3):  # reading allocates, so a collection may come in between
            count = self._count
            states = [histogram.read() for histogram in self._histograms]
            if count == self._count:
                break
        return states

    def paused_ns(self, began_ns: int, ended_ns: int) -> int:
        """Return how much of an interval, by this clock, the last long pauses took, the present one too."""
        present = ((self._began_ns, ended_ns),) if self._began_ns else ()
        return sum(
            max(0, min(end, ended_ns) - max(begin, began_ns)) for begin, end in (*self._recent, *present)
        )
