"""What each event loop does with its time: how it is kept, and what can be read of it.

A timer follows one loop and is written by that loop's thread alone; any thread may read it at any time, also
while the loop is blocked, and then sees the part so far. `probes/choice.py` chooses between native timers
(`native_source/loop_time.h`, `native_source/libuv.h`) and pure ones (`pure_loop_time.py`).
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import add
from typing import Any, NamedTuple, Protocol

from otel_concurrency.probes.histogram import HistogramState, merge_states
from otel_concurrency.probes.loops import LoopIndex
from otel_concurrency.probes.thread_clock import ThreadClock, ThreadUse

SELECT = "select"
LIBUV = "libuv"
LIBUV_TOTALS = "libuv totals"
UNSEEN = "unseen"


class TimerReading(NamedTuple):
    """What a timer has counted, the part so far of what is under way included.

    Attributes:
        active_ns: Time outside of waiting for events, while the loop ran.
        idle_ns: Time waiting for events.
        blocking: Iterations that began with a wait that might have taken long.
        polling: Iterations that began with a look for events, others being due, and found some.
        empty: Those that found none.
        untold: Iterations of which it is not known how they began.
        events: What was found.
        longest_ns: The longest iteration, the present one included.
        iteration_ns: For how long the present iteration has lasted; -1 while the loop waits or does not run.
        durations: Iterations that are over.
        delays: What callbacks would have waited for their turn; see `loop_delay`.
    """

    active_ns: int
    idle_ns: int
    blocking: int
    polling: int
    empty: int
    untold: int
    events: int
    longest_ns: int
    iteration_ns: int
    durations: HistogramState
    delays: HistogramState = HistogramState()


NO_TIME = TimerReading(0, 0, 0, 0, 0, 0, 0, 0, -1, HistogramState())


def add_readings(one: TimerReading, other: TimerReading) -> TimerReading:
    """Return the numbers of both."""
    return TimerReading._make(
        (
            *map(add, one[:7], other[:7]),
            max(one.longest_ns, other.longest_ns),
            max(one.iteration_ns, other.iteration_ns),
            merge_states(one.durations, other.durations),
            merge_states(one.delays, other.delays),
        )
    )


class LoopTimer(Protocol):
    """Follows one loop through its runs, one at a time.

    Attributes:
        begin_epoll: A run begins in this thread: returns what to use in the place of a selector's own
            `select.epoll`. None where that costs more than to replace `select`.
    """

    @property
    def begin_epoll(self) -> Callable[[Any], Any] | None: ...

    def begin_select(self, original: Callable[..., Any], /) -> Callable[..., Any]:
        """A run begins in this thread: return the `select` to call in the place of the original."""
        ...

    def begin_libuv(self, loop: Any, library: str, /) -> str:
        """A run of libuv begins in this thread.

        Args:
            loop: A capsule that points at its `uv_loop_t`.
            library: Path of the extension module that libuv is part of.

        Returns:
            `LIBUV`; `LIBUV_TOTALS` where iterations and their durations are not to be told apart; `UNSEEN`.
        """
        ...

    def end(self) -> None:
        """The run is over; what it counted stays."""
        ...

    def read(self) -> TimerReading:
        """Return the totals."""
        ...


@dataclass(frozen=True, slots=True)
class LoopTimeRow:
    """The time of one loop, or of all loops that had its id one after the other.

    Attributes:
        loop_id: See `LoopIndex`; None for the row of all loops beyond its limit.
        loop_type: `selector`, `proactor`, `uvloop`, `winloop`, `trio` or `other`.
        way: How it is seen: `SELECT`, `LIBUV` (both exact), `LIBUV_TOTALS` (no iterations' durations, and
            no kinds of them), `UNSEEN` (no times but those of the thread).
        is_running: Whether a run is under way.
        thread_ident: `threading.get_ident()` of the thread that runs or last ran it.
        time: What the timer tells.
        use: What the thread took meanwhile.
        ready: Callbacks ready to run; None where the loop does not tell.
        timers: Calls set for later and not cancelled; None where the loop does not tell.
    """

    loop_id: int | None
    loop_type: str
    way: str
    is_running: bool
    thread_ident: int
    time: TimerReading
    use: ThreadUse
    ready: int | None
    timers: int | None


class TimedLoop:
    """One loop as `LoopTimes` knows it.

    Attributes:
        timer: Follows it.
        way: How the run under way is seen, or the last one was.
        is_running: Whether a run is under way.
        thread_ident: Of the thread that runs or last ran it.
    """

    __slots__ = ("clock", "is_running", "loop_id", "loop_type", "reference", "thread_ident", "timer", "way")

    def __init__(self, loop_id: int | None, loop_type: str, timer: LoopTimer) -> None:
        self.reference: Callable[[], asyncio.AbstractEventLoop | None] = _nobody
        self.loop_id = loop_id
        self.loop_type = loop_type
        self.timer = timer
        self.clock = ThreadClock()
        self.way = UNSEEN
        self.is_running = False
        self.thread_ident = 0

    def began(self, way: str) -> None:
        """This thread runs the loop from now on; the timer has been told."""
        self.thread_ident = threading.get_ident()
        self.clock.enter()
        self.way = way
        self.is_running = True

    def ended(self) -> None:
        """The run is over."""
        self.is_running = False
        self.timer.end()
        self.clock.leave(self.timer.read().active_ns)


class LoopTimes:
    """The timers of all loops; those of loops that are gone serve the next ones of their id.

    Args:
        make_timer: Makes a timer.
        loops: Where loops get their ids.
    """

    def __init__(self, make_timer: Callable[[], LoopTimer], *, loops: LoopIndex | None = None) -> None:
        self._make_timer = make_timer
        self._loop_of = loops or LoopIndex()
        self._loops: list[TimedLoop] = []
        self._lock = threading.RLock()

    def timed(self, loop: asyncio.AbstractEventLoop) -> TimedLoop:
        """Return a loop's own; a loop that was never seen gets it now."""
        known = self.known(loop)
        if known is not None:
            return known
        with self._lock:
            loop_id, loop_type = self._loop_of(loop)
            for known in self._loops:
                if (known.loop_id, known.loop_type) == (loop_id, loop_type) and known.reference() is None:
                    break
            else:
                known = TimedLoop(loop_id, loop_type, self._make_timer())
                self._loops.append(known)
            try:
                known.reference = weakref.ref(loop)
            except TypeError:
                known.reference = lambda: loop
            return known

    def known(self, loop: object) -> TimedLoop | None:
        """Return a loop's own, without making one; takes no lock."""
        for known in self._loops:
            if known.reference() is loop:
                return known
        return None

    def timed_loops(self) -> list[TimedLoop]:
        """Return those of all loops; takes no lock."""
        return list(self._loops)

    def id_of(self, loop: object) -> tuple[int | None, str]:
        """Return the id and type of a loop that ran, `(None, "other")` of any other; takes no lock."""
        known = self.known(loop)
        return (known.loop_id, known.loop_type) if known is not None else (None, "other")

    def running(self) -> list[TimedLoop]:
        """Return the loops that run now; takes no lock."""
        return [known for known in list(self._loops) if known.is_running]

    def read(self) -> list[LoopTimeRow]:
        """Return one row for each id and type."""
        rows: dict[tuple[int | None, str], LoopTimeRow] = {}
        with self._lock:
            loops = list(self._loops)
        for known in loops:
            row, key = _row(known), (known.loop_id, known.loop_type)
            rows[key] = _add(rows[key], row) if key in rows else row
        return list(rows.values())

    def reset(self) -> None:
        """Begin without any loop, as a forked child must: a run that was under way is the parent's."""
        self._lock = threading.RLock()  # another thread may have held it at the fork
        self._loops = []


def _nobody() -> None:
    return None


def _row(known: TimedLoop) -> LoopTimeRow:
    time = known.timer.read()

    def active_ns() -> int:
        nonlocal time
        time = known.timer.read()
        return time.active_ns

    if known.is_running:
        known.clock.look(active_ns)
    loop = known.reference()
    ready, timers = _of_trio(loop) if known.loop_type == "trio" else _of_asyncio(loop)
    return LoopTimeRow(
        loop_id=known.loop_id,
        loop_type=known.loop_type,
        way=known.way,
        is_running=known.is_running,
        thread_ident=known.thread_ident,
        time=time,
        use=known.clock.use,
        ready=ready,
        timers=timers,
    )


def _of_asyncio(loop: object) -> tuple[int | None, int | None]:
    ready, timers = _length(loop, "_ready"), _length(loop, "_scheduled")
    if timers is not None:
        timers = max(0, timers - getattr(loop, "_timer_cancelled_count", 0))
    return ready, timers


def _of_trio(runner: object) -> tuple[int | None, int | None]:
    # trio/_core/_run.py: tasks in line, and cancel scopes with a deadline.
    timers = getattr(getattr(runner, "deadlines", None), "_active", None)
    return _length(runner, "runq"), timers if isinstance(timers, int) else None


def _length(loop: object, name: str) -> int | None:
    # asyncio's own loops tell (CPython asyncio/base_events.py); uvloop's attributes are not Python's.
    try:
        return len(getattr(loop, name))
    except (AttributeError, TypeError):
        return None


def _add(one: LoopTimeRow, other: LoopTimeRow) -> LoopTimeRow:
    return replace(
        one if one.is_running else other,
        time=add_readings(one.time, other.time),
        is_running=one.is_running or other.is_running,
        use=one.use + other.use,
        ready=_add_known((one.ready, other.ready)),
        timers=_add_known((one.timers, other.timers)),
    )


def _add_known(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
