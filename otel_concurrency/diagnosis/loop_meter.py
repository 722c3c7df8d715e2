"""What loops have done since the last window, and which stalls they had."""

from __future__ import annotations

import time
from collections.abc import Callable

from otel_concurrency.diagnosis.window import LoopNumbers, StallNumbers
from otel_concurrency.hooks.loops.stalls import Stall
from otel_concurrency.probes.histogram import HistogramState, state_since
from otel_concurrency.probes.loop_time import LIBUV, SELECT, LoopTimeRow
from otel_concurrency.probes.readers import Readers

MAX_STALLS = 200
"""Stalls kept of one window."""

OTHER = "_other"
P95 = 0.95

TraceOf = Callable[[object], str]


def p95_s(state: HistogramState) -> float:
    """Return the 95th percentile, in seconds; 0 of nothing."""
    return state.quantile_s(P95) if state.count else 0.0


class LoopMeter:
    """Reads the loops' timers."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._before: dict[tuple[int | None, str], LoopTimeRow] = {}
        self.threads: frozenset[int] = frozenset()

    def read(self, elapsed_s: float) -> tuple[LoopNumbers, ...]:
        """Return what each loop has done since the last time; those that did not run are left out."""
        rows = [row for read in self._readers.of("loops") for row in read()]
        before, self._before = self._before, {(row.loop_id, row.loop_type): row for row in rows}
        self.threads = frozenset(row.thread_ident for row in rows if row.is_running)
        numbers = (_numbers(before.get((row.loop_id, row.loop_type)), row, elapsed_s) for row in rows)
        return tuple(each for each in numbers if each is not None)


def _numbers(before: LoopTimeRow | None, now: LoopTimeRow, elapsed_s: float) -> LoopNumbers | None:
    time_now = now.time
    ns = elapsed_s * 1e9
    zero = before is None or before.time.active_ns > time_now.active_ns
    was = None if zero or before is None else before.time

    def since(field: str) -> int:
        return int(getattr(time_now, field)) - (int(getattr(was, field)) if was is not None else 0)

    active_ns = since("active_ns")
    if active_ns + since("idle_ns") <= 0 and not now.is_running:
        return None
    durations = time_now.durations if was is None else state_since(was.durations, time_now.durations)
    delays = time_now.delays if was is None else state_since(was.delays, time_now.delays)
    use, used = now.use, None if zero or before is None else before.use
    blocking, polling, empty, untold = (since(each) for each in ("blocking", "polling", "empty", "untold"))
    iterations = blocking + polling + empty + untold
    holding_s = max(0, time_now.iteration_ns) / 1e9
    return LoopNumbers(
        name=OTHER if now.loop_id is None else str(now.loop_id),
        kind=now.loop_type,
        active=min(1.0, active_ns / ns),
        cpu=_share(used.cpu_ns if used else 0, use.cpu_ns, ns),
        runqueue=_share(used.runqueue_ns if used else 0, use.runqueue_ns, ns),
        blocked=_share(used.blocked_ns if used else 0, use.blocked_ns, ns),
        iterations=iterations / elapsed_s,
        empty=empty / iterations if iterations else 0.0,
        events=since("events") / elapsed_s,
        delay_p95_s=p95_s(delays),
        longest_s=max(durations.max_ns / 1e9, holding_s),
        holding_s=holding_s,
        ready=now.ready,
        has_kinds=now.way in (SELECT, LIBUV),
    )


def _share(before_ns: int | None, now_ns: int | None, ns: float) -> float | None:
    return None if now_ns is None else min(1.0, max(0, now_ns - (before_ns or 0)) / ns)


class StallMeter:
    """Hears of stalls, as a `StallListener`, and keeps them for the window in which they are told.

    Args:
        trace_of: Returns the id of the trace that a stall's origin is in, or empty.
    """

    def __init__(self, trace_of: TraceOf) -> None:
        self._trace_of = trace_of
        self.reset()

    def reset(self) -> None:
        """Know none: at first, and again in a forked child."""
        self._ended: list[StallNumbers] = []
        self._on: dict[int, Stall] = {}

    def stall_seen(self, stall: Stall) -> None:
        """A stall is on."""
        self._on[id(stall)] = stall

    def stall_goes_on(self, stall: Stall) -> None:
        """It was looked at again."""

    def stall_ended(self, stall: Stall) -> None:
        """It is over."""
        self._on.pop(id(stall), None)
        if len(self._ended) < MAX_STALLS:
            self._ended.append(self._numbers(stall))

    def take(self) -> tuple[StallNumbers, ...]:
        """Return those that ended since the last time, and those that are on."""
        ended, self._ended = self._ended, []
        now_unix_ns = time.time_ns()
        on = [self._numbers(stall, now_unix_ns - stall.began_unix_ns) for stall in list(self._on.values())]
        return (*ended, *on)

    def _numbers(self, stall: Stall, so_far_ns: int = 0) -> StallNumbers:
        return StallNumbers(
            loop=OTHER if stall.loop_id is None else str(stall.loop_id),
            cause=stall.cause,
            took_s=max(stall.duration_ns, so_far_ns) / 1e9,
            function=stall.function,
            call=stall.call,
            file=stall.file,
            line=stall.line,
            task=stall.task_name,
            frames=stall.frames,
            looks=stall.looks,
            trace=self._trace_of(stall.origin),
            is_on=bool(so_far_ns),
        )
