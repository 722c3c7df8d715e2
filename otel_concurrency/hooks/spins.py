"""A loop that turns without anything to do: `await asyncio.sleep(0)` in a loop, say.

Nobody waits for long then, so neither an iteration nor a delay tells of it. It shows in how iterations begin:
nearly all of them look for events without waiting, and find none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from otel_concurrency.hooks.stalls import Stall, StallListener
from otel_concurrency.hooks.watchdog import WatchedRun
from otel_concurrency.probes.loop_time import TimerReading
from otel_concurrency.probes.stall_cause import SPIN

WINDOW_NS = 400_000_000
"""The shortest time that says something."""

EMPTY_SHARE = 0.95
"""Of its iterations, a spinning loop has at least so many without an event."""

ACTIVE_SHARE = 0.95
RATE = 10_000
"""Iterations a second of a loop that spins, at least."""


class _Window(NamedTuple):
    began_ns: int
    reading: TimerReading


class SpinWatch:
    """Follows spins, one of each loop at a time.

    A thread that looks gets the GIL where the loop lets go of it, so never inside a step: who makes the loop
    turn is told by whose steps there are most of.

    Args:
        listener: Hears of them.
        step_counts: Returns how many steps there were of each coroutine function.
    """

    def __init__(self, listener: StallListener, step_counts: Callable[[], dict[str, int]]) -> None:
        self._listener = listener
        self._step_counts = step_counts
        self._windows: dict[WatchedRun, _Window] = {}
        self._suspects: dict[WatchedRun, dict[str, int]] = {}  # the steps before
        self._told: dict[WatchedRun, Stall] = {}

    def look(self, run: WatchedRun, reading: TimerReading, now_ns: int) -> None:
        """Look at a loop that runs."""
        window = self._windows.get(run)
        elapsed_ns = 0 if window is None else now_ns - window.began_ns
        if window is not None and elapsed_ns < WINDOW_NS:
            return
        self._windows[run] = _Window(now_ns, reading)
        if window is None or not _spins(window.reading, reading, elapsed_ns):
            self.end(run)
        elif (stall := self._told.get(run)) is not None:
            stall.duration_ns += elapsed_ns
            self._listener.stall_goes_on(stall)
        elif (before := self._suspects.get(run)) is not None:
            self._tell(run, before, elapsed_ns)
        else:
            self._suspects[run] = self._step_counts()

    def end(self, run: WatchedRun) -> None:
        """It spins no more."""
        self._suspects.pop(run, None)
        stall = self._told.pop(run, None)
        if stall is not None:
            self._listener.stall_ended(stall)

    def forget(self, run: WatchedRun) -> None:
        """The run is over."""
        self.end(run)
        self._windows.pop(run, None)

    def _tell(self, run: WatchedRun, before: dict[str, int], elapsed_ns: int) -> None:
        steps = {name: count - before.get(name, 0) for name, count in self._step_counts().items()}
        most = max(steps, key=lambda name: steps[name], default="")
        timed = run.timed
        stall = self._told[run] = Stall(
            timed.loop_id,
            timed.loop_type,
            run.ident,
            time.time_ns() - 2 * elapsed_ns,
            duration_ns=2 * elapsed_ns,
            cause=SPIN,
            function=most if steps and steps[most] * 2 >= sum(steps.values()) > 0 else "",
            looks=1,
        )
        self._listener.stall_seen(stall)


def _spins(before: TimerReading, now: TimerReading, elapsed_ns: int) -> bool:
    empty = now.empty - before.empty
    others = now.blocking + now.polling + now.untold - before.blocking - before.polling - before.untold
    active_ns, idle_ns = now.active_ns - before.active_ns, now.idle_ns - before.idle_ns
    return (
        empty * 1_000_000_000 >= RATE * elapsed_ns
        and empty >= EMPTY_SHARE * (empty + others)
        and active_ns >= ACTIVE_SHARE * (active_ns + idle_ns)
    )
