"""What the process took and lost: CPU, the GIL, the collector; its threads, its forks, its failures."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from otel_concurrency.diagnosis.window import FailureNumbers, ThreadNumbers
from otel_concurrency.probes.gc_pauses import GcPauses
from otel_concurrency.probes.gil import GilProbe
from otel_concurrency.probes.histogram import HistogramState, state_since
from otel_concurrency.probes.readers import Readers
from otel_concurrency.probes.stacks import Stack, look, look_at_thread
from otel_concurrency.probes.thread_states import is_internal, python_threads

LEAST_SHARE = 0.01
"""Threads that took less of a CPU are left out."""

MAX_THREADS = 10
MAX_NAMES = 5

_PER_THREAD = 6  # CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED, linux/posix-timers.h
_EXECS = ("subprocess.", "_posixsubprocess.", "asyncio.unix_events.")  # a child of these runs no Python


class GilNumbers(NamedTuple):
    """Waits for the GIL in a window."""

    mean_s: float | None
    max_s: float | None
    probes: int


class GcNumbers(NamedTuple):
    """Pauses of the garbage collector in a window."""

    share: float
    longest_s: float
    pauses: int


class ProcessMeter:
    """Reads what concerns all of the process.

    Args:
        readers: Where throttling and failures are read.
        gil: The process's.
        gc_pauses: The process's.
    """

    def __init__(self, readers: Readers, gil: GilProbe, gc_pauses: GcPauses) -> None:
        self._readers = readers
        self._gil = gil
        self._gc_pauses = gc_pauses
        self._gil_before = (gil.wait_ns, gil.probes)
        self._gc_before = gc_pauses.read()
        self._cpu_ns = time.process_time_ns()
        self._throttled_ns = self._throttled()
        self._threads: dict[int, int] = {}
        self._failures: dict[tuple[str, str], tuple[int, str]] = {}  # those from before we came count, too

    def gil(self) -> GilNumbers:
        """Return what was waited for the GIL since the last time."""
        wait_ns, probes = self._gil.wait_ns, self._gil.probes
        (before_ns, before), self._gil_before = self._gil_before, (wait_ns, probes)
        longest_ns, count = self._gil.take_longest_ns(), probes - before
        if count <= 0:
            return GilNumbers(None, None, 0)
        return GilNumbers((wait_ns - before_ns) / count / 1e9, longest_ns / 1e9, count)

    def gc(self, elapsed_s: float) -> GcNumbers:
        """Return what collections took since the last time."""
        now = self._gc_pauses.read()
        before, self._gc_before = self._gc_before, now
        new: list[HistogramState] = [state_since(*pair) for pair in zip(before, now, strict=True)]
        return GcNumbers(
            min(1.0, sum(state.sum_ns for state in new) / 1e9 / elapsed_s),  # it may have begun before
            max((state.max_ns for state in new), default=0) / 1e9,
            sum(state.count for state in new),
        )

    def cpu(self, elapsed_s: float) -> float:
        """Return how many CPUs the process took."""
        now_ns = time.process_time_ns()
        before_ns, self._cpu_ns = self._cpu_ns, now_ns
        return (now_ns - before_ns) / 1e9 / elapsed_s

    def throttled(self, elapsed_s: float) -> float | None:
        """Return the share of time without quota."""
        now_ns = self._throttled()
        before_ns, self._throttled_ns = self._throttled_ns, now_ns
        return None if now_ns is None or before_ns is None else (now_ns - before_ns) / 1e9 / elapsed_s

    def threads(self, elapsed_s: float, loops: frozenset[int]) -> tuple[ThreadNumbers, ...]:
        """Return the threads that took CPU time, the busiest first."""
        before, self._threads = self._threads, {}
        found: list[tuple[float, int, str]] = []
        for native_id, thread in python_threads().items():
            taken_ns = None if is_internal(thread) else _thread_cpu_ns(native_id)
            if taken_ns is None:
                continue
            self._threads[native_id] = taken_ns
            share = max(0, taken_ns - before.get(native_id, 0)) / 1e9 / elapsed_s
            if native_id in before or share <= 1.0:  # one that we meet late may be older than the window
                found.append((share, thread.ident, thread.name))
        busiest = sorted(found, reverse=True)[:MAX_THREADS]
        return tuple(
            _thread(name, share, ident, ident in loops)
            for share, ident, name in busiest
            if share >= LEAST_SHARE
        )

    def failures(self) -> tuple[FailureNumbers, ...]:
        """Return the failures since the last time."""
        now = self._read_failures()
        before, self._failures = self._failures, now
        return tuple(
            FailureNumbers(kind, error_type, new, function)
            for (kind, error_type), (count, function) in now.items()
            if (new := count - before.get((kind, error_type), (0, ""))[0]) > 0
        )

    def _throttled(self) -> int | None:
        for read in self._readers.of("throttled"):
            total: int | None = read()
            return total
        return None

    def _read_failures(self) -> dict[tuple[str, str], tuple[int, str]]:
        return {key: value for read in self._readers.of("failures") for key, value in read().items()}


def _thread(name: str, share: float, ident: int, runs_loop: bool) -> ThreadNumbers:
    stack = None if runs_loop else look_at_thread(ident)
    return ThreadNumbers(
        name, min(1.0, share), runs_loop, stack.frames if stack else (), own_function(stack) if stack else ""
    )


def own_function(stack: Stack) -> str:
    """Return the application's innermost function of a stack."""
    place = f" ({stack.file}:{stack.line})"
    return next((frame[: -len(place)] for frame in stack.frames if frame.endswith(place)), "")


def _thread_cpu_ns(native_id: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime_ns(~native_id << 3 | _PER_THREAD)
    except OSError:  # it has ended
        return None


class ForkMeter:
    """Counts forks of this process, and who else ran; `about_to_fork` is called before each.

    Args:
        ours: Returns the kernel's ids of our own threads.
    """

    def __init__(self, ours: Callable[[], Iterable[int]] = tuple) -> None:
        self._ours = ours
        self.forks = 0
        self.threads = 0
        self.names: tuple[str, ...] = ()
        self.function = ""

    def about_to_fork(self) -> None:
        """Take note of a fork; never raises."""
        try:
            own = threading.get_ident()
            ours = frozenset(self._ours())
            names = [
                thread.name
                for native_id, thread in python_threads().items()
                if thread.ident != own and native_id not in ours and not is_internal(thread)
            ]
            stack = look(sys._getframe(1))
            if stack is not None and any(frame.startswith(_EXECS) for frame in stack.frames):
                return
            self.forks += 1
            if len(names) >= self.threads and names:
                self.threads, self.names = len(names), tuple(sorted(names)[:MAX_NAMES])
                self.function = own_function(stack) if stack is not None else ""
        except Exception:
            self.forks += 0

    def take(self) -> tuple[int, int, tuple[str, ...], str]:
        """Return forks, threads, names and who forked, since the last time."""
        taken = (self.forks, self.threads, self.names, self.function)
        self.forks, self.threads, self.names, self.function = 0, 0, (), ""
        return taken
