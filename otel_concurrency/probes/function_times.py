"""How long functions take that the program asked to have timed, a row per function.

Nothing here ever waits for its lock but a reading: a timed function may run in a `__del__` or a signal
handler, in the middle of what another call of it counts.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from otel_concurrency.probes.histogram import MAX_PENDING, Histogram, HistogramState
from otel_concurrency.probes.pure import type_name

OTHER = "_other"
"""The row of every function, and the type of every error, beyond the limit."""

MAX_FUNCTIONS = 200
MAX_ERROR_TYPES = 10
"""Of one function."""

EXEMPLAR_TRIES = 64
"""Calls of a function, after each reading, that may all become exemplars; then only one slower than all."""

FINISHED = "finished"
FAILED = "failed"
CANCELLED = "cancelled"
CLOSED = "closed"

_CANCELLATIONS = (("asyncio.exceptions", "CancelledError"), ("trio", "Cancelled"))


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """The calls of one function that ended in one way; every number only grows.

    Attributes:
        name: `module.qualname`, the name that the program gave, or `_other`.
        outcome: `finished`, `failed`, `cancelled`, or `closed`: left before its end by whoever used it.
        error_type: Qualified type of the exception of those that failed, else None.
        durations: How long they took.
    """

    name: str
    outcome: str
    error_type: str | None
    durations: HistogramState


class TimedFunction:
    """One function's numbers. Who is in a hurry appends to `pending`, up to `slow_ns` and `MAX_PENDING`.

    Attributes:
        name: Under which it counts.
        pending: Durations, ns, of calls that finished, not sorted in yet.
        slow_ns: What took longer is for `finish`, not for `pending`.
    """

    __slots__ = ("_finished", "_lock", "_others", "_owner", "_tries", "name", "pending", "slow_ns")

    slow_ns: int

    def __init__(self, name: str, owner: FunctionTimes) -> None:
        self.name = name
        self._owner = owner
        self.reset()

    def __repr__(self) -> str:
        return f"<TimedFunction {self.name}>"

    def reset(self) -> None:
        """Begin at zero, with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._finished = Histogram()
        self._others: dict[tuple[str, str | None], Histogram] = {}
        self.pending = self._finished.pending
        self._expect_exemplars()

    def finish(self, ns: int) -> None:
        """Count a call that finished, one that may become an exemplar, or one too many that waits."""
        if ns > self.slow_ns:
            self._tries -= 1
            if self._tries <= 0:
                self.slow_ns = ns
            self._observe(self._finished, ns)
        else:
            self.pending.append(ns)
        if len(self.pending) >= MAX_PENDING:
            self._sort_in(self._finished)

    def end(self, ns: int, error: BaseException) -> None:
        """Count a call that an exception ended."""
        outcome, error_type = _outcome_of(error)
        others = self._others
        histogram = others.get((outcome, error_type))
        if histogram is None:
            if len(others) >= MAX_ERROR_TYPES and error_type is not None:
                error_type = OTHER
            histogram = others.setdefault((outcome, error_type), Histogram())
        self._observe(histogram, ns)
        if len(histogram.pending) >= MAX_PENDING:
            self._sort_in(histogram)

    def read(self) -> list[FunctionRow]:
        """Return a row for each way in which calls ended, exemplars drained."""
        with self._lock:
            self._expect_exemplars()
            rows = [FunctionRow(self.name, FINISHED, None, self._finished.read())]
            rows += (
                FunctionRow(self.name, outcome, error_type, histogram.read())
                for (outcome, error_type), histogram in list(self._others.items())
            )
        return [row for row in rows if row.durations.count]

    def _expect_exemplars(self) -> None:
        self._tries = EXEMPLAR_TRIES
        self.slow_ns = -1

    def _observe(self, histogram: Histogram, ns: int) -> None:
        owner = self._owner
        if self._lock.acquire(False):
            try:
                histogram.observe(ns, owner.origin(), owner.wall_clock())
            finally:
                self._lock.release()
        else:
            histogram.pending.append(ns)

    def _sort_in(self, histogram: Histogram) -> None:
        if self._lock.acquire(False):
            try:
                histogram.sort_in()
            finally:
                self._lock.release()


class FunctionTimes:
    """Keeps a row for each timed function; while nobody has called `start`, it is not to be told of calls.

    Args:
        wall_clock: Time for exemplars, ns since the epoch.

    Attributes:
        is_counting: Whether anybody will read it.
        origin: Returns what was current where a call ended, for exemplars; opaque here.
    """

    origin: Callable[[], object]

    def __init__(self, *, wall_clock: Callable[[], int] = time.time_ns) -> None:
        self.wall_clock = wall_clock
        self.is_counting = False
        self._functions: dict[str, TimedFunction] = {}
        self._lock = threading.Lock()
        self.stop()

    def __repr__(self) -> str:
        return (
            f"<FunctionTimes [{'counting' if self.is_counting else 'off'}, {len(self._functions)} functions]>"
        )

    def start(self, origin: Callable[[], object]) -> None:
        """Count from now on."""
        self.origin = origin
        self.is_counting = True

    def stop(self) -> None:
        """Count no more."""
        self.is_counting = False
        self.origin = _nothing

    def function(self, name: str) -> TimedFunction:
        """Return where a function counts: functions of one name share a row, and so do those too many."""
        with self._lock:
            found = self._functions.get(name)
            if found is None:
                if len(self._functions) >= MAX_FUNCTIONS:
                    name = OTHER
                found = self._functions.setdefault(name, TimedFunction(name, self))
            return found

    def read(self) -> list[FunctionRow]:
        """Return the rows of all functions that were called."""
        with self._lock:
            functions = list(self._functions.values())
        return [row for function in functions for row in function.read()]

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._lock = threading.Lock()
        for function in self._functions.values():
            function.reset()


def _nothing() -> None:
    return None


def _outcome_of(error: BaseException) -> tuple[str, str | None]:
    if isinstance(error, GeneratorExit):
        return CLOSED, None
    for module, name in _CANCELLATIONS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return CANCELLED, None
    return FAILED, type_name(type(error))


default = FunctionTimes()
"""The process's: what `otel_concurrency.timed` counts into."""
