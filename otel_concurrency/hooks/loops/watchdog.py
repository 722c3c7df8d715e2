"""The thread that watches event loops from outside: it wakes about once a second, and when one stalls.

It is there only where a loop has run, and without a loop that runs it sleeps for good. At a fork it is gone:
CPython 3.12 and later warn a process that forks with threads, and none of those is to be ours. It comes back
when a loop begins to run, or goes on to.

`probes/quiet_thread.py` keeps it out of what a program counts. It holds no lock while it waits.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.interpreters import is_main_interpreter
from otel_concurrency.probes.gil import GilProbe, is_gil_enabled
from otel_concurrency.probes.loop_time import TimedLoop
from otel_concurrency.probes.quiet_thread import QuietThread
from otel_concurrency.probes.thread_clock import clock_of_this_thread
from otel_concurrency.probes.watch import Wake, Watch, Watched

Runs = tuple["WatchedRun", ...]

THREAD_NAME = "otel-concurrency-watchdog"
TICK_S = (0.75, 1.25)
"""How long a tick takes: anything in between, so that nothing in the program keeps time with it."""

POLL_NS = 50_000_000
"""How often the native wait looks at the loops."""

_JOIN_S = 0.4
_NEVER_NS = 3_600_000_000_000
_REMEMBERED = 16  # runs that are over, until somebody has looked what they leave to be told
_EMPTY = contextvars.Context()

_logger = logging.getLogger(__name__)


class WatchedRun:
    """One run of a loop.

    Attributes:
        timed: The loop, and its timer.
        cpu_clock: Of the thread that runs it.
        native_id: Of that thread.
        ident: The same, as `threading` calls it.
        ended_ns: When it was over, monotonic time; 0 before.
    """

    __slots__ = ("cpu_clock", "ended_ns", "ident", "native_id", "timed")

    def __init__(self, timed: TimedLoop) -> None:
        """Take it from the thread that is about to run the loop."""
        self.timed = timed
        self.cpu_clock = clock_of_this_thread()
        self.native_id = threading.get_native_id()
        self.ident = threading.get_ident()
        self.ended_ns = 0


class Listener(Protocol):
    """What the thread does when it is awake; it never runs in two threads at once."""

    def tick(self, runs: Runs, wake: Wake, ended: Runs = ()) -> float | None:
        """Look at the loops that run.

        Args:
            runs: Their runs.
            wake: Why the wait has ended.
            ended: Runs that were over since the tick before.

        Returns:
            When to come again, in s, where that is to be sooner than usual.
        """
        ...

    def catch_up(self, runs: Runs, ended: Runs) -> None:
        """Tell of what is over by now; comes from any thread, the one of a loop too."""
        ...

    def stop(self) -> None:
        """The thread ends."""
        ...


class Watchdog:
    """Starts, stops and paces the watching thread.

    Args:
        listener: Called at each tick.
        make_watch: Makes what the thread waits with.
        threshold_ns: From when on an iteration is a stall.
        gil: Counts what the thread waits for the GIL.

    Attributes:
        also: Called after each tick, in the thread, while loops run; must not raise. It returns when to
            come again, in s, where that is to be sooner than usual.
        also_s: When to come for the first time, likewise.
    """

    def __init__(
        self, listener: Listener, make_watch: Callable[[], Watch], *, threshold_ns: int, gil: GilProbe
    ) -> None:
        self._listener = listener
        self._make_watch = make_watch
        self._threshold_ns = threshold_ns
        self._gil = gil
        self._runs: Runs = ()
        self._undo: list[Callable[[], None]] = []
        self._is_on = False
        self.also: Callable[[], float | None] | None = None
        self.also_s: float | None = None
        self._begin()

    def __repr__(self) -> str:
        state = "running" if self._thread is not None else "asleep" if self._is_on else "removed"
        return f"<Watchdog [{state}, {len(self._runs)} loops]>"

    def install(self) -> None:
        """Watch loops that begin to run from now on; a second call changes nothing."""
        if not self._is_on and is_main_interpreter():
            self._is_on = True
            atexit.register(self._end)  # a stall that is on then is told while somebody still listens
            self._undo = [
                lambda: atexit.unregister(self._end),
                fork.before_fork(self._stop),
                fork.in_parent(self._go_on_soon),
                fork.in_child(self._begin_in_child),
            ]

    def remove(self) -> None:
        """Watch nothing any more; the thread has ended when this returns."""
        self._is_on = False
        while self._undo:
            self._undo.pop()()
        self._stop()
        self._runs = ()

    def loop_began(self, timed: TimedLoop) -> None:
        """A run begins, in this thread."""
        if self._is_on:
            with self._lock:
                self._runs = (*self._runs, WatchedRun(timed))
            self._ensure()

    def loop_ended(self, timed: TimedLoop) -> None:
        """It is over."""
        with self._lock:
            for run in self._runs:
                if run.timed is timed:
                    run.ended_ns = time.monotonic_ns()
                    self._ended.append(run)
            self._runs = tuple(run for run in self._runs if run.timed is not timed)
            if not self._runs and self._thread is not None:
                self._watch.ring()  # it would not come by itself any more

    def catch_up(self) -> None:
        """Tell of what is over, in this thread: the one that watches may be short of CPU, the end near."""
        ticking = self._ticking
        if self._thread is None or not ticking.acquire(timeout=_JOIN_S):
            return
        try:
            self._listener.catch_up(self._runs, self._take_ended())
        except Exception:
            self._fail()
        finally:
            ticking.release()

    def _take_ended(self) -> Runs:
        with self._lock:
            ended = tuple(self._ended)
            self._ended.clear()
        return ended

    def _fail(self) -> None:
        self._is_on = False
        _logger.exception("Watching event loops failed and is switched off; the program goes on")

    def _end(self) -> None:
        self._is_on = False
        self.catch_up()
        self._stop()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may fork, anywhere
        self._thread: QuietThread | None = None
        self._ticking = threading.Lock()
        self._ended: deque[WatchedRun] = deque(maxlen=_REMEMBERED)
        self._watch = self._make_watch()
        self._is_stopping = False

    def _begin_in_child(self) -> None:
        self._runs = ()
        self._begin()

    def _ensure(self) -> None:
        """See to it that the thread is there and knows which loops run."""
        with self._lock:
            if self._thread is not None or not self._is_on or not self._runs:
                self._watch.ring()
                return
            self._is_stopping = False
            self._watch = self._make_watch()
            watch = self._watch
            thread = QuietThread(lambda: self._work(watch), name=THREAD_NAME, native=watch.sees_stalls)
            try:
                thread.start()
            except RuntimeError:  # the interpreter has none to give any more
                return
            self._thread = thread

    def _go_on_soon(self) -> None:
        # Not here: CPython counts the threads after a fork, to warn of them, and from 3.14 on after this.
        for run in self._runs:
            loop = run.timed.reference()
            if loop is not None:
                try:
                    loop.call_soon_threadsafe(self._ensure, context=_EMPTY)
                except RuntimeError:  # closed meanwhile
                    pass

    def _stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            self._is_stopping = True
        if thread is not None:
            self._watch.ring()
            thread.join(_JOIN_S)

    def _work(self, watch: Watch) -> None:
        try:
            self._watch_loops(watch)
        except Exception:
            self._fail()

    def _watch_loops(self, watch: Watch) -> None:
        sooner_s: float | None = None
        also_s = self.also_s
        try:
            while watch is self._watch and not self._is_stopping:
                runs = self._runs
                tick_s = min(sooner_s or random.uniform(*TICK_S), also_s or TICK_S[1])
                timeout_ns = int(tick_s * 1e9) if runs else _NEVER_NS
                loops = [Watched(run.timed.timer, run.cpu_clock, run.native_id) for run in runs]
                # While a stall is being followed, it is not to end the wait.
                wake = watch.wait(loops, timeout_ns, POLL_NS, _NEVER_NS if sooner_s else self._threshold_ns)
                if wake.was_rung and (self._runs or not self._ended):
                    continue
                # From here to the look at a stalled loop nothing may let go of the GIL, or the loop goes on.
                with self._ticking:
                    wake = self._with_gil_wait(wake)
                    ended = self._take_ended()
                    sooner_s = self._listener.tick(runs, wake, ended) if runs or ended else None
                if self.also is not None and runs:
                    also_s = self.also()
        finally:
            with self._ticking:
                self._listener.stop()

    def _with_gil_wait(self, wake: Wake) -> Wake:
        if not is_gil_enabled():
            return wake._replace(gil_ns=0)
        if wake.gil_ns >= 0:
            return wake._replace(gil_ns=self._gil.add(wake.gil_ns))
        return wake._replace(gil_ns=self._gil.add_overshoot(wake.overshoot_ns, wake.delay_ns))
