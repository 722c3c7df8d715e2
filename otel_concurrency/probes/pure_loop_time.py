"""The pure twin of the native loop timer: a Python function in the place of `select`, `ctypes` for libuv.

An iteration is what a loop does between two waits for events (CPython `asyncio/base_events.py`, `_run_once`).
"""

from __future__ import annotations

import functools
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from otel_concurrency.probes.histogram import BUCKET_COUNT, UPPER_BOUNDS_NS, HistogramState
from otel_concurrency.probes.libuv_totals import LibuvTotals
from otel_concurrency.probes.loop_delay import EVERY_NS, SLICES, SPREAD_NS, delays
from otel_concurrency.probes.loop_time import LIBUV_TOTALS, NO_TIME, UNSEEN, TimerReading, add_readings

_ITERATING, _WAITING, _OTHER = range(3)


class PureLoopTimer:
    """Follows one loop through its runs, one at a time.

    Args:
        monotonic_ns: The clock.
    """

    begin_epoll = None

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = monotonic_ns
        self._before = NO_TIME
        self._run: _SelectRun | _LibuvRun | None = None

    def begin_select(self, original: Callable[..., Any], /) -> Callable[..., Any]:
        """A run begins in this thread: return the `select` to call in the place of the original."""
        if self._run is not None:
            raise RuntimeError("this loop is timed already")
        run = self._run = _SelectRun(original, self._now_ns)
        return run.select

    def begin_libuv(self, loop: Any, library: str, /) -> str:
        """A run of libuv begins in this thread; return how it is seen."""
        if self._run is not None:
            raise RuntimeError("this loop is timed already")
        try:
            self._run = _LibuvRun(loop, library)
        except (OSError, AttributeError, ImportError, ValueError):
            return UNSEEN
        return LIBUV_TOTALS

    def end(self) -> None:
        """The run is over; what it counted stays."""
        run = self._run
        if run is not None:
            run.end()
            self._before, self._run = add_readings(self._before, run.read())._replace(iteration_ns=-1), None

    def read(self) -> TimerReading:
        """Return the totals."""
        before, run = self._before, self._run
        return before if run is None else add_readings(before, run.read())


class _SelectRun:
    """One run: a function with what it counts in its own variables, which cost least.

    Readers in other threads take `mark`, a whole: the numbers beside it may be of another moment.
    """

    def __init__(self, original: Callable[..., Any], now_ns: Callable[[], int]) -> None:
        began_ns = now_ns()
        active_ns = idle_ns = busy_ns = blocking = polling = empty = events = longest_ns = 0
        shortest_ns = sys.maxsize
        buckets = [0] * BUCKET_COUNT
        delayed = _Delays()
        pending_ns = 0  # the last iteration, whose delays depend on the next one
        mark = (_OTHER, began_ns, 0, 0)
        is_over = False

        def select(timeout: Any = None) -> Any:
            nonlocal active_ns, idle_ns, busy_ns, blocking, polling, empty, events
            nonlocal longest_ns, shortest_ns, pending_ns, mark
            if is_over:
                return original(timeout)
            is_poll = timeout is not None and timeout <= 0
            called_ns = now_ns()
            took_ns = called_ns - mark[1]
            active_ns += took_ns
            if mark[0] == _ITERATING:
                busy_ns += took_ns
                buckets[bisect_left(UPPER_BOUNDS_NS, took_ns)] += 1
                if took_ns > longest_ns:
                    longest_ns = took_ns
                if took_ns < shortest_ns:
                    shortest_ns = took_ns
                if pending_ns:
                    delayed.add(pending_ns, took_ns)
                pending_ns = took_ns
            mark = (_OTHER if is_poll else _WAITING, called_ns, active_ns, idle_ns)
            found = original(timeout)
            returned_ns = now_ns()
            count = len(found) if type(found) is list else 0
            events += count
            if not is_poll:
                blocking += 1
                if pending_ns:  # nothing was due: what had become so by then would have been the first
                    delayed.add(pending_ns, 0)
                    pending_ns = 0
                idle_ns += returned_ns - called_ns
            else:
                active_ns += returned_ns - called_ns
                if count:
                    polling += 1
                else:
                    empty += 1
            mark = (_ITERATING, returned_ns, active_ns, idle_ns)
            return found

        def end() -> None:
            nonlocal is_over, active_ns, idle_ns, busy_ns, longest_ns, shortest_ns, pending_ns, mark
            is_over = True
            ended_ns = now_ns()
            phase, since_ns, active_ns, idle_ns = mark
            took_ns = ended_ns - since_ns
            if phase == _WAITING:
                idle_ns += took_ns
            else:
                active_ns += took_ns
            if phase == _ITERATING:
                busy_ns += took_ns
                buckets[bisect_left(UPPER_BOUNDS_NS, took_ns)] += 1
                longest_ns, shortest_ns = max(longest_ns, took_ns), min(shortest_ns, took_ns)
                delayed.add(pending_ns, took_ns)
                pending_ns = took_ns
            delayed.add(pending_ns, 0)
            pending_ns = 0
            mark = (_OTHER, ended_ns, active_ns, idle_ns)

        def read() -> TimerReading:
            now = now_ns()
            phase, since_ns, active, idle = mark
            so_far_ns = 0 if is_over else max(0, now - since_ns)
            idle += so_far_ns if phase == _WAITING else 0
            return TimerReading(
                active + (so_far_ns if phase != _WAITING else 0),
                idle,
                blocking,
                polling,
                empty,
                0,
                events,
                max(longest_ns, so_far_ns if phase == _ITERATING else 0),
                so_far_ns if phase == _ITERATING and not is_over else -1,
                _state(list(buckets), busy_ns, shortest_ns, longest_ns),
                delays(delayed.read(), idle),
            )

        self.select = functools.update_wrapper(select, original)
        self.end, self.read = end, read


class _LibuvRun:
    """One run of which libuv's own totals are known: no iteration can be told from another."""

    def __init__(self, loop: Any, library: str) -> None:
        self._totals = LibuvTotals(loop, library)
        self._last: TimerReading | None = None

    def end(self) -> None:
        self._last = self.read()

    def read(self) -> TimerReading:
        if self._last is not None:
            return self._last
        active_ns, idle_ns, iterations, events = self._totals.read()
        return NO_TIME._replace(active_ns=active_ns, idle_ns=idle_ns, untold=iterations, events=events)


class _Delays:
    """Times by delay; see `loop_delay`."""

    def __init__(self) -> None:
        self._times = [0] * BUCKET_COUNT
        self._sum = 0
        self._longest_ns = 0

    def add(self, took_ns: int, next_ns: int) -> None:
        """An iteration is over, and what the next one takes is known."""
        if took_ns <= 0:
            return
        self._sum += took_ns * (took_ns + next_ns)
        longest_ns = max(took_ns, next_ns)
        if longest_ns > self._longest_ns:
            self._longest_ns = longest_ns
        if longest_ns < SPREAD_NS:
            self._times[bisect_left(UPPER_BOUNDS_NS, (took_ns + next_ns + 1) // 2)] += took_ns
            return
        for half in range(1, 2 * SLICES, 2):
            delay_ns = took_ns + (next_ns - took_ns) * half // (2 * SLICES)
            self._times[bisect_left(UPPER_BOUNDS_NS, delay_ns)] += took_ns // SLICES

    def read(self) -> HistogramState:
        return _state(list(self._times), self._sum // (2 * EVERY_NS), 0, self._longest_ns)


def _state(buckets: list[int], sum_ns: int, min_ns: int, max_ns: int) -> HistogramState:
    used = [position for position, count in enumerate(buckets) if count]
    if not used:
        return HistogramState()
    counts = tuple(buckets[used[0] : used[-1] + 1])
    return HistogramState(sum(counts), sum_ns, min_ns, max_ns, 0, used[0], counts)
