"""How a snapshot lets others run: whatever it goes through, the GIL is on offer every so often."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

HELD_NS = 2_500_000
"""For how long a snapshot keeps the GIL at a stretch."""

_BETWEEN = 8  # things between two looks at the clock

_T = TypeVar("_T")


class Pace:
    """Since when this thread has had the GIL for itself; one snapshot is taken at a time."""

    def __init__(self) -> None:
        self._since_ns = time.monotonic_ns()

    def through(self, things: Iterable[_T]) -> Iterator[_T]:
        """Go through things, and offer the GIL in time."""
        left = _BETWEEN
        for thing in things:
            yield thing
            left -= 1
            if not left:
                left = _BETWEEN
                self.offer()

    def offer(self) -> None:
        """Let others run if it is time to."""
        if time.monotonic_ns() - self._since_ns > HELD_NS:
            time.sleep(0)
            self._since_ns = time.monotonic_ns()


_PACE = Pace()
paced = _PACE.through
offer = _PACE.offer
