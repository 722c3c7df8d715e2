"""A loop that turns without anything to do: `await asyncio.sleep(0)` in a loop, say.

Nobody waits for long then, so neither an iteration nor a delay tells of it. It shows in how iterations begin:
nearly all of them look for events without waiting, and find none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from otel_concurrency.hooks.loops.stalls import Stall, StallListener
from otel_concurrency.hooks.loops.watchdog import WatchedRun
from otel_concurrency.probes.loop_time import NO_TIME, TimerReading
from otel_concurrency.probes.stall_cause import SPIN

WINDOW_NS = 400_000_000
"""The shortest time that says something."""

FIRST_NS = 5_000_000_000
"""What a loop did before it was looked at for the first time, as far as that is soon enough."""

EMPTY_SHARE = 0.95
"""Of its iterations, a spinning loop has at least so many without an event."""

ACTIVE_SHARE = 0.95
RATE = 10_000
"""Iterations a second of a loop that spins, at least."""


class _Window(NamedTuple):
    """What a loop did from one look to a later one."""

    elapsed_ns: int
    empty: int
    others: int
    active_ns: int
    idle_ns: int

    @property
    def spins(self) -> bool:
        return (
            self.empty * 1_000_000_000 >= RATE * self.elapsed_ns
            and self.is_empty
            and self.active_ns >= ACTIVE_SHARE * (self.active_ns + self.idle_ns)
        )

    @property
    def is_empty(self) -> bool:
        return self.empty >= EMPTY_SHARE * (self.empty + self.others)

    def spun_ns(self, like: _Window) -> int:
        """Return for how long of this it spun, in the way of a window that is all spinning."""
        if self.is_empty and self.empty >= like.empty // 100:
            return min(self.elapsed_ns, self.active_ns)
        return min(self.elapsed_ns, self.empty * like.elapsed_ns // max(1, like.empty))


class _Look(NamedTuple):
    at_ns: int
    reading: TimerReading

    def until(self, now_ns: int, now: TimerReading) -> _Window:
        before = self.reading
        others = now.blocking + now.polling + now.untold - before.blocking - before.polling - before.untold
        return _Window(
            now_ns - self.at_ns,
            now.empty - before.empty,
            others,
            now.active_ns - before.active_ns,
            now.idle_ns - before.idle_ns,
        )


class _Suspect(NamedTuple):
    before: _Window | None
    first: _Window
    steps: dict[str, int]


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
        self._looks: dict[WatchedRun, _Look] = {}
        self._windows: dict[WatchedRun, _Window] = {}  # the last whole one
        self._suspects: dict[WatchedRun, _Suspect] = {}
        self._told: dict[WatchedRun, Stall] = {}

    def look(self, run: WatchedRun, reading: TimerReading, now_ns: int) -> None:
        """Look at a loop that runs."""
        since = self._looks.get(run)
        if since is not None and now_ns - since.at_ns < WINDOW_NS:
            return
        self._looks[run] = _Look(now_ns, reading)
        if since is None:
            ran_ns = reading.active_ns + reading.idle_ns
            if ran_ns < FIRST_NS:  # since the loop began
                self._windows[run] = _Look(now_ns - ran_ns, NO_TIME).until(now_ns, reading)
            return
        window = since.until(now_ns, reading)
        before = self._windows.get(run)
        self._windows[run] = window
        if not window.spins:
            self._end(run, window, before)
        elif (stall := self._told.get(run)) is not None:
            stall.duration_ns += window.elapsed_ns
            self._listener.stall_goes_on(stall)
        elif (suspect := self._suspects.get(run)) is not None:
            self._tell(run, suspect, window)
        else:
            self._suspects[run] = _Suspect(before, window, self._step_counts())

    def forget(self, run: WatchedRun, reading: TimerReading, ended_ns: int) -> None:
        """The run is over."""
        since, before = self._looks.pop(run, None), self._windows.pop(run, None)
        self._end(run, since.until(ended_ns, reading) if since is not None else None, before)

    def _end(self, run: WatchedRun, last: _Window | None, before: _Window | None) -> None:
        self._suspects.pop(run, None)
        stall = self._told.pop(run, None)
        if stall is not None:
            if last is not None and before is not None:
                stall.duration_ns += last.spun_ns(before)
            self._listener.stall_ended(stall)

    def _tell(self, run: WatchedRun, suspect: _Suspect, window: _Window) -> None:
        counts, before = self._step_counts(), suspect.steps
        steps = {name: count - before.get(name, 0) for name, count in counts.items()}
        most = max(steps, key=lambda name: steps[name], default="")
        lead_ns = suspect.before.spun_ns(suspect.first) if suspect.before is not None else 0
        spun_ns = lead_ns + suspect.first.elapsed_ns + window.elapsed_ns
        timed = run.timed
        stall = self._told[run] = Stall(
            timed.loop_id,
            timed.loop_type,
            run.ident,
            time.time_ns() - spun_ns,
            duration_ns=spun_ns,
            cause=SPIN,
            function=most if steps and steps[most] * 2 >= sum(steps.values()) > 0 else "",
            looks=1,
        )
        self._listener.stall_seen(stall)
