"""What the threads of this process are doing at this moment, and how much CPU time they have taken.

Read from `/proc/self/task/*/{syscall,schedstat,stat}` (Linux, `proc(5)`): the system call that a thread is
blocked in tells sleeping from waiting for a lock from waiting for the world. Which of those at a lock are
workers without work shows in their Python frames, where these can be had.

Python's own threads go by name. SDK-internal threads and ours are left out.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple

from otel_concurrency.probes import quiet_thread
from otel_concurrency.probes.process import PROC, list_folder, read_file
from otel_concurrency.probes.thread_frames import thread_frames
from otel_concurrency.probes.thread_waits import waits_for

RUNNING = "running"
SYSCALL = "syscall"
SLEEP = "sleep"
LOCK_OR_GIL = "lock_or_gil"
IDLE_WORKER = "idle_worker"
UNKNOWN = "unknown"

MAX_THREADS = 200
"""Threads looked at in one sample; with more, they take turns, and the others' state is `unknown`."""
MAX_NAMES = 32
OTHER = "_other"
UNNAMED = "_unnamed"
"""Threads that `threading` does not know: those of libraries in C."""

_SECOND_LOOK_S = 0.001
_MAX_FRAMES = 6
_NUMBERS = re.compile(r"[-_ .]*(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\d+)")
_INTERNAL = ("Otel", "otel-concurrency")  # what the names of the SDK's threads and of ours begin with

# A worker that waits for work has these frames on top: first waiting itself, then the worker's own loop.
_WAITING_IN = ("threading", "queue")
_WORKER_LOOPS = {
    ("concurrent.futures.thread", "_worker"),
    ("multiprocessing.pool", "worker"),
    ("multiprocessing.queues", "_feed"),
    ("anyio._backends._asyncio", "run"),
    ("trio._core._thread_cache", "_work"),
}

_FUTEX_ANYWHERE = {449, 455}  # futex_waitv, futex_wait
_CALLS = {  # machine: futex, sleeps, those that sleep if they watch no file (first argument), poll (second)
    "x86_64": ({202}, {35, 230}, {23, 270}, {7, 271}),
    "aarch64": ({98}, {101, 115}, {72}, {73}),
    "riscv64": ({98}, {101, 115}, {72}, {73}),
}


@dataclass(frozen=True, slots=True)
class ThreadSample:
    """All threads, by group: their name without its numbers, so that a pool's threads go by the pool's name.

    Attributes:
        states: How many Python threads are in a state, by (group, state).
        cpu_ns: CPU time by group, ns, since this process began; only grows. What a thread took between the
            last sample that saw it and its end is not in it.
        main_is_alive: False once the main thread has ended, as long as others keep the process going.
        waiting: How many Python threads wait for others, by what for; workers without work do not.
    """

    states: Mapping[tuple[str, str], int]
    cpu_ns: Mapping[str, int]
    main_is_alive: bool
    waiting: Mapping[str, int]


class ThreadSampler:
    """Samples this process's threads; where there is no `/proc`, counts them by name.

    Never called by two at once.

    Args:
        proc: The folder of this process.
        machine: Whose system call numbers apply.
    """

    def __init__(self, proc: str = PROC, *, machine: str | None = None) -> None:
        self._tasks = f"{proc}/task"
        self._state_of_call = call_classifier(machine or platform.machine())
        self._begin()

    def __repr__(self) -> str:
        return f"<ThreadSampler [{len(self._cpu_ns)} groups]>"

    def sample(self) -> ThreadSample:
        """Look once."""
        if os.getpid() != self._pid:
            self._begin()
        threads = python_threads()
        found = self._native_ids()
        _give_main_its_own_id(threads, found)
        looked_at = self._turn(sorted(found))
        states: dict[int, str] = {}
        cpu_ns: dict[int, int] = {}
        for native_id in looked_at:
            thread = threads.get(native_id)
            if native_id in quiet_thread.native_ids or (thread is not None and is_internal(thread)):
                continue
            if (taken := self._cpu_time(native_id)) is not None:
                cpu_ns[native_id] = taken
            if thread is not None:
                states[native_id] = self._state(native_id)
        waiting = self._look_inside(states, threads)
        self._look_again(states, cpu_ns)
        self._add_up(cpu_ns, threads, found)
        return ThreadSample(
            states=Counter(
                (self._group(thread), states.get(native_id, UNKNOWN))
                for native_id, thread in threads.items()
                if not is_internal(thread)
            ),
            cpu_ns=dict(self._cpu_ns),
            main_is_alive=_main_is_alive(threads.values()),
            waiting=Counter(kind for native_id, kind in waiting.items() if states.get(native_id) != RUNNING),
        )

    def _begin(self) -> None:
        """Start at zero: at first, and again in a forked child."""
        self._pid = os.getpid()
        self._cpu_ns: dict[str, int] = {}
        self._seen: dict[int, int] = {}
        self._groups: dict[str, str] = {}
        self._next = 0

    def _native_ids(self) -> set[int]:
        try:
            return {int(name) for name in list_folder(self._tasks)}
        except OSError:
            return set()

    def _turn(self, native_ids: list[int]) -> list[int]:
        if len(native_ids) <= MAX_THREADS:
            return native_ids
        self._next %= len(native_ids)
        turn = (native_ids[self._next :] + native_ids[: self._next])[:MAX_THREADS]
        self._next += MAX_THREADS
        return turn

    def _cpu_time(self, native_id: int) -> int | None:
        fields = (read_file(f"{self._tasks}/{native_id}/schedstat") or b"").split()
        return int(fields[0]) if fields else None

    def _state(self, native_id: int) -> str:
        if native_id == threading.get_native_id():
            return RUNNING
        call = read_file(f"{self._tasks}/{native_id}/syscall")
        if call is not None:
            return self._state_of_call(call)
        # Closed to us, or a kernel without it.
        fields = (read_file(f"{self._tasks}/{native_id}/stat") or b"").rpartition(b")")[2].split()
        return {b"R": RUNNING, b"D": SYSCALL}.get(fields[0], UNKNOWN) if fields else UNKNOWN

    def _look_inside(self, states: dict[int, str], threads: Mapping[int, PythonThread]) -> dict[int, str]:
        """Tell workers without work from others that may be at a lock; returns what these wait for."""
        waiting: dict[int, str] = {}
        may_wait = [
            (native_id, thread.ident)
            for native_id, thread in threads.items()
            if states.get(native_id, UNKNOWN) in (LOCK_OR_GIL, UNKNOWN) and not is_internal(thread)
        ]
        frames = thread_frames() if may_wait else {}
        for native_id, ident in may_wait:
            frame = frames.get(ident)
            kind = waits_for(frame)
            if waits_for_work(frame):
                if states.get(native_id) == LOCK_OR_GIL:
                    states[native_id] = IDLE_WORKER
            elif kind is not None:
                waiting[native_id] = kind
        return waiting

    def _look_again(self, states: dict[int, str], cpu_ns: dict[int, int]) -> None:
        """See who of those at a lock runs as soon as we let go of the GIL: our looking kept it from that."""
        waiting = [native_id for native_id, state in states.items() if state == LOCK_OR_GIL]
        if not any(native_id in cpu_ns for native_id in waiting) or _serves_a_loop():
            return
        began_ns = time.monotonic_ns()
        time.sleep(_SECOND_LOOK_S)
        for native_id in waiting:
            before_ns, after_ns = cpu_ns.get(native_id), self._cpu_time(native_id)
            if before_ns is None or after_ns is None:
                continue
            cpu_ns[native_id] = after_ns
            if 2 * (after_ns - before_ns) >= time.monotonic_ns() - began_ns:
                states[native_id] = RUNNING

    def _add_up(
        self, cpu_ns: Mapping[int, int], threads: Mapping[int, PythonThread], found: set[int]
    ) -> None:
        for native_id, taken in cpu_ns.items():
            before = self._seen.get(native_id, 0)
            group = self._group(threads[native_id]) if native_id in threads else UNNAMED
            # Less than before: another thread got the id of one that has ended.
            self._cpu_ns[group] = self._cpu_ns.get(group, 0) + taken - (before if taken >= before else 0)
            self._seen[native_id] = taken
        for gone in self._seen.keys() - found if found else ():  # else nobody was looked at
            del self._seen[gone]

    def _group(self, thread: PythonThread) -> str:
        name = _NUMBERS.sub("", thread.name).strip("-_ .") or OTHER
        group = self._groups.get(name)
        if group is None:
            if len(self._groups) >= MAX_NAMES:
                return OTHER
            group = self._groups[name] = name
        return group


def is_internal(thread: PythonThread | threading.Thread) -> bool:
    """Whether a thread is the SDK's or ours, and none of the application's business."""
    return thread.name.startswith(_INTERNAL)


class PythonThread(NamedTuple):
    """What a sample needs of a thread: to hold the thread itself would keep it beyond its end.

    Attributes:
        ident: `threading.get_ident()` there.
        name: Its name.
        daemon: Whether the process ends without waiting for it.
    """

    ident: int
    name: str
    daemon: bool


def python_threads() -> dict[int, PythonThread]:
    """Return the threads that `threading` knows, by the kernel's id."""
    # `threading.enumerate()` takes a lock, which whoever collects in a signal handler may hold already.
    alive: Mapping[object, threading.Thread] = dict(vars(threading)["_active"])
    return {
        thread.native_id: PythonThread(thread.ident or 0, thread.name, thread.daemon)
        for thread in alive.values()
        if thread.native_id is not None
    }


def _main_is_alive(threads: Iterable[PythonThread]) -> bool:
    main = threading.main_thread()
    # When all is over, `threading` gives it up while it still runs the exit handlers.
    return main.is_alive() or all(thread.daemon or thread.ident == main.ident for thread in threads)


def _give_main_its_own_id(threads: dict[int, PythonThread], found: set[int]) -> None:
    """Correct what a forked child inherited: its only thread has the process's id, not the parent's."""
    main_id = threading.main_thread().native_id
    if main_id in threads and main_id not in found and os.getpid() in found:
        threads[os.getpid()] = threads.pop(main_id)


def call_classifier(machine: str) -> Callable[[bytes], str]:
    """Return what tells a thread's state from its `syscall` file.

    Args:
        machine: Whose system call numbers apply, as `platform.machine()` names it.
    """
    none: set[int] = set()
    known = sys.maxsize > 2**32  # else the calls are those of the 32-bit machine
    futex, sleeps, selects, polls = _CALLS.get(machine if known else "", (none, none, none, none))
    blocked = SYSCALL if futex else UNKNOWN
    futex = futex | _FUTEX_ANYWHERE

    def state_of_call(text: bytes) -> str:
        """Read a line of `/proc/*/task/*/syscall`: the number and the arguments, `-1 …` or `running`."""
        fields = text.split()
        if not fields:
            return UNKNOWN
        if fields[0] == b"running":
            return RUNNING
        number = int(fields[0])
        if number < 0:  # blocked, but not in a system call: a page fault for instance
            return SYSCALL
        if number in futex:
            return LOCK_OR_GIL
        watches_nothing = (number in selects and int(fields[1], 16) == 0) or (
            number in polls and int(fields[2], 16) == 0
        )
        return SLEEP if number in sleeps or watches_nothing else blocked

    return state_of_call


def waits_for_work(frame: FrameType | None) -> bool:
    """Whether a thread is a worker without work, by its topmost frame."""
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return False
        module = frame.f_globals.get("__name__")
        if (module, frame.f_code.co_name) in _WORKER_LOOPS:
            return True
        if module not in _WAITING_IN:
            return False
        frame = frame.f_back
    return False


def _serves_a_loop() -> bool:
    """Whether an event loop runs in this thread: it has no time to wait for us."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
