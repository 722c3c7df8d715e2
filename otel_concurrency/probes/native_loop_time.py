"""The native loop timer as Python sees it."""

from __future__ import annotations

from otel_concurrency.probes import _native
from otel_concurrency.probes.loop_delay import delays
from otel_concurrency.probes.loop_time import TimerReading
from otel_concurrency.probes.native import histogram_state


class NativeLoopTimer:
    """Follows one loop through its runs, one at a time."""

    __slots__ = ("begin_epoll", "begin_libuv", "begin_select", "end", "native")

    def __init__(self) -> None:
        native = self.native = _native.LoopTimer()
        self.begin_select = native.begin_select
        self.begin_epoll = native.begin_epoll
        self.begin_libuv = native.begin_libuv
        self.end = native.end

    def read(self) -> TimerReading:
        """Return the totals."""
        *numbers, durations, times = self.native.read()
        idle_ns = numbers[TimerReading._fields.index("idle_ns")]
        return TimerReading._make(
            (*numbers, histogram_state(durations), delays(histogram_state(times), idle_ns))
        )
