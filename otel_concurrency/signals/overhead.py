"""What we cost, told as a metric."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from otel_concurrency.signals.names import COMPONENT, OVERHEAD_TIME
from otel_concurrency.signals.readings import SumReading


class Overhead:
    """A source with the time that each part of ours has taken, outside of the hot paths.

    Args:
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.start_unix_ns = clock()
        self.begin()

    def begin(self) -> None:
        """Start at nothing: at first, and again in a forked child, where a held lock would stay held."""
        self._lock = threading.Lock()
        self._spent_ns: dict[str, int] = {}

    def add(self, component: str, ns: int) -> None:
        """Count time that a component took, ns."""
        with self._lock:
            self._spent_ns[component] = self._spent_ns.get(component, 0) + ns

    def collect(self) -> tuple[SumReading, ...]:
        """Read the totals."""
        with self._lock:
            spent_ns = dict(self._spent_ns)
        return (SumReading(OVERHEAD_TIME, [({COMPONENT: name}, ns) for name, ns in spent_ns.items()]),)
