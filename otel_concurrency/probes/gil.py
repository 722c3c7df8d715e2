"""How long a thread waits for the global interpreter lock, probed by one that has nothing else to do.

A thread that wakes from a sleep has to get the lock before it can say so. What it is late by, without the
time for which the kernel had no CPU for it (`/proc/self/task/*/schedstat`, second field) and without what
waking up always takes, it has waited for the lock. A wait in C tells the same without guessing.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable

WINDOW_NS = 60_000_000_000
"""How far back `max_ns` looks."""

_SLICE_NS = 10_000_000_000
_BASELINE_PROBES = 32
_FIRST_BASELINE_NS = 100_000  # what waking up takes on an idle machine


def is_gil_enabled() -> bool:
    """Whether this interpreter runs one thread at a time."""
    asked = getattr(sys, "_is_gil_enabled", None)  # CPython 3.13
    return True if asked is None else bool(asked())


class GilProbe:
    """Adds up what one probing thread has waited for the lock.

    Args:
        clock: Monotonic time, ns.

    Attributes:
        wait_ns: All waits together, ns.
        probes: How many there were.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self.reset()

    def __repr__(self) -> str:
        return f"<GilProbe [{self.probes} probes, {self.wait_ns / 1e6:.1f} ms]>"

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self.wait_ns = 0
        self.probes = 0
        self._since_taken_ns = 0
        self._overshoots: deque[int] = deque(maxlen=_BASELINE_PROBES)
        self._longest: deque[tuple[int, int]] = deque(maxlen=WINDOW_NS // _SLICE_NS)

    def add(self, wait_ns: int) -> int:
        """Count one wait, and return it."""
        self.wait_ns += wait_ns
        self.probes += 1
        self._since_taken_ns = max(self._since_taken_ns, wait_ns)
        began_ns = self._clock() // _SLICE_NS
        if not self._longest or self._longest[-1][0] != began_ns:
            self._longest.append((began_ns, wait_ns))
        elif wait_ns > self._longest[-1][1]:
            self._longest[-1] = (began_ns, wait_ns)
        return wait_ns

    def add_overshoot(self, overshoot_ns: int, run_delay_ns: int = 0) -> int:
        """Count one wait by how late a sleep ended, and return how much of it was the lock's.

        Args:
            overshoot_ns: What it took longer than asked for.
            run_delay_ns: For how long the thread was without a CPU meanwhile.
        """
        late_ns = max(0, overshoot_ns - run_delay_ns)
        baseline_ns = min(self._overshoots, default=_FIRST_BASELINE_NS)
        self._overshoots.append(late_ns)
        return self.add(max(0, late_ns - baseline_ns))

    def take_longest_ns(self) -> int:
        """Return the longest wait since this was last asked, ns; for one who asks."""
        longest_ns, self._since_taken_ns = self._since_taken_ns, 0
        return longest_ns

    def max_ns(self) -> int:
        """Return the longest wait of the last minute, ns."""
        oldest = self._clock() // _SLICE_NS - WINDOW_NS // _SLICE_NS
        return max((longest for began, longest in list(self._longest) if began > oldest), default=0)
