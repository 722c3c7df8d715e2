"""What a thread took of the machine while it ran a loop: CPU, a place in the run queue, time blocked.

CPU time comes from the thread's own clock (`pthread_getcpuclockid(3)`), which any other thread can read; time
in the run queue from `/proc/self/task/<tid>/schedstat` (Linux, `Documentation/scheduler/sched-stats.rst`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from otel_concurrency.probes.process import PROC, read_file

SCHEDSTAT_EVERY_NS = 1_000_000_000
"""How often a run that begins or ends may open a file; many short ones would pay more for that than for
themselves. What lies between two looks counts for the run that looks next."""


_TRIES = 3
_AT_ONCE_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class ThreadUse:
    """Totals, in ns; None where the machine does not tell.

    Attributes:
        cpu_ns: On a CPU.
        runqueue_ns: Ready to run, and waiting for a CPU.
        blocked_ns: Active, and neither: inside a callback that waits for something, a lock or the GIL say.
    """

    cpu_ns: int | None = None
    runqueue_ns: int | None = None
    blocked_ns: int | None = None

    def __add__(self, other: ThreadUse) -> ThreadUse:
        return ThreadUse(
            _sum(self.cpu_ns, other.cpu_ns),
            _sum(self.runqueue_ns, other.runqueue_ns),
            _sum(self.blocked_ns, other.blocked_ns),
        )


class ThreadClock:
    """Adds up what threads take, one after the other, while each is entered.

    Attributes:
        use: The totals, as of the last look.
    """

    def __init__(self) -> None:
        self.use = ThreadUse()
        self._lock = threading.Lock()
        self._clock_id: int | None = None
        self._native_id = 0
        self._cpu_ns: int | None = None
        self._runqueue_ns: int | None = None
        self._active_ns = 0
        self._looked_ns: int | None = None

    def enter(self) -> None:
        """This thread is the one to look at; a look takes it from here on."""
        native_id = threading.get_native_id()
        with self._lock:
            if native_id != self._native_id:
                self._native_id = native_id
                self._clock_id = clock_of_this_thread()
                self._looked_ns = None
            if self._may_open_a_file():
                self._runqueue_ns = runqueue_ns(native_id)
            self._cpu_ns = cpu_ns(self._clock_id)

    def leave(self, active_ns: int) -> None:
        """The thread is about to do something else."""
        with self._lock:
            now_ns = cpu_ns(self._clock_id)
            waited_ns = runqueue_ns(self._native_id) if self._may_open_a_file() else self._runqueue_ns
            self._look(active_ns, now_ns, waited_ns)

    def look(self, active_ns: Callable[[], int]) -> None:
        """Add what was taken since the last look.

        Args:
            active_ns: Returns how long the thread has been active in all, idle waits left out. It is asked
                again where something came in between: what is not of one instant is taken off `blocked_ns`.
        """
        with self._lock:
            tries = 0
            while True:
                began_ns = time.monotonic_ns()
                # The CPU clock right after: what it takes to read the file is no part of either.
                active, now_ns = active_ns(), cpu_ns(self._clock_id)
                waited_ns = runqueue_ns(self._native_id)
                tries += 1
                if tries == _TRIES or time.monotonic_ns() - began_ns < _AT_ONCE_NS:
                    break
            self._look(active, now_ns, waited_ns)

    def _may_open_a_file(self) -> bool:
        now_ns, looked_ns = time.monotonic_ns(), self._looked_ns
        if looked_ns is not None and now_ns - looked_ns < SCHEDSTAT_EVERY_NS:
            return False
        self._looked_ns = now_ns
        return True

    def _look(self, active_ns: int, now_ns: int | None, waited_ns: int | None) -> None:
        active = max(0, active_ns - self._active_ns)
        on_cpu = _difference(now_ns, self._cpu_ns)
        queued = _difference(waited_ns, self._runqueue_ns)
        blocked = None if on_cpu is None else max(0, active - on_cpu - min(queued or 0, active))
        self.use += ThreadUse(on_cpu, queued, blocked)
        self._active_ns = active_ns
        self._cpu_ns, self._runqueue_ns = now_ns, waited_ns


def clock_of_this_thread() -> int | None:
    """Return the id of this thread's CPU clock, for `cpu_ns`; None where there is none."""
    if sys.platform == "win32" or not hasattr(time, "pthread_getcpuclockid"):
        return None
    try:
        return time.pthread_getcpuclockid(threading.get_ident())
    except OSError:
        return None


def cpu_ns(clock_id: int | None) -> int | None:
    """Return a thread's CPU time; None once it has ended."""
    if sys.platform == "win32" or clock_id is None:
        return None
    try:
        return time.clock_gettime_ns(clock_id)
    except OSError:
        return None


def runqueue_ns(native_id: int, read: Callable[[str], bytes | None] = read_file) -> int | None:
    """Return how long a thread of this process has waited for a CPU; None where nobody tells.

    Args:
        native_id: See `threading.get_native_id`.
        read: Reads a small file; None where it cannot.
    """
    try:
        return int((read(f"{PROC}/task/{native_id}/schedstat") or b"").split()[1])
    except (IndexError, ValueError):
        return None


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else max(0, now - before)


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
