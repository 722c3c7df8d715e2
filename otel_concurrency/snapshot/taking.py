"""Takes snapshots."""

from __future__ import annotations

import functools
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from otel_concurrency.probes.loop_time import TimedLoop
from otel_concurrency.probes.loops import LOOP_IDS, loop_type
from otel_concurrency.snapshot import sync_objects
from otel_concurrency.snapshot.census import Census, SeenTasks
from otel_concurrency.snapshot.chains import Chains
from otel_concurrency.snapshot.details import Details, Memory, cancel_requests, chosen
from otel_concurrency.snapshot.live import (
    LiveExecutor,
    LiveLock,
    LiveLoop,
    LivePool,
    LiveQueue,
    LiveThread,
    Snapshot,
)
from otel_concurrency.snapshot.live_tasks import Deadlock, LiveTask
from otel_concurrency.snapshot.orphans import is_orphaned
from otel_concurrency.snapshot.pace import paced
from otel_concurrency.snapshot.relations import Relations
from otel_concurrency.snapshot.sources import SOURCES
from otel_concurrency.snapshot.task_list import live_tasks
from otel_concurrency.snapshot.thread_list import live_threads

MAX_TASKS = 1_000
"""Tasks told in detail, unless asked for more."""

MAX_COUNTED = 200_000
"""Tasks that are looked at; those beyond are not told apart."""

_MAY_BE_ORPHANED = sync_objects.KINDS | {"future"}
_MAX_WAITING = 100  # tasks that wait for the same; with more of them, nobody looks whether they can be woken

_TRIOS_OWN = (("trio._core._run", "Runner.init"), ("trio._core._entry_queue", "EntryQueue.task"))

_T = TypeVar("_T")


class _Taker:
    """Takes one snapshot at a time."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Know nothing, as a forked child must: another thread may have held the lock at the fork."""
        self._lock = threading.Lock()
        self._memory = Memory()

    def take(self, max_tasks: int, with_threads: bool) -> Snapshot:
        with self._lock:
            return _Taking(self._memory, max_tasks, with_threads).take()


class _Taking:
    """One snapshot in the making; what fails on the way is missing in it, and the rest is there."""

    def __init__(self, memory: Memory, max_tasks: int, with_threads: bool) -> None:
        self._memory = memory
        self._max_tasks = max_tasks
        self._with_threads = with_threads
        self._chains = Chains()
        self._census = Census(self._chains)
        self._relations = Relations(self._chains)
        self._troubles: list[str] = []

    def take(self) -> Snapshot:
        began_ns, began_unix_ns = time.monotonic_ns(), time.time_ns()
        timed = [loop for loop in self._asked("event loops", SOURCES.loops) if loop.is_running]
        found: list[Any] = self._try("tasks", lambda: self._find_tasks(timed), [])
        self._try("tasks", lambda: self._census.count(found[:MAX_COUNTED]), None)
        relations, seen = self._relations, self._census.seen
        self._try("who waits for whom", lambda: relations.look(seen), None)
        self._try("who waits for whom", relations.add_what_python_knows, None)
        deadlocks: tuple[Deadlock, ...] = self._try("deadlocks", relations.deadlocks, ())
        in_cycle = {edge.waiter for deadlock in deadlocks for edge in deadlock.edges}
        none: list[LiveTask] = []
        tasks = self._try("tasks", lambda: self._tell(seen, in_cycle), none)
        locks: tuple[LiveLock, ...] = self._try("locks", relations.locks, ())
        queues: tuple[LiveQueue, ...] = self._try("queues", relations.queues, ())
        relations.let_go()
        tasks = self._try("orphans", lambda: self._with_orphans(tasks), tasks)
        self._memory.forget_old()
        if relations.is_cut:
            self._troubles.append("who waits for whom: too many wait; what is told is not all")
        if self._census.failed:
            self._troubles.append(f"{self._census.failed} tasks cannot be looked at")
        snapshot = Snapshot(
            taken_unix_ns=began_unix_ns,
            pid=os.getpid(),
            python=platform.python_version(),
            probe=SOURCES.probes[0].way if SOURCES.probes else "",
            task_count=len(found),
            states=self._census.states,
            waits=self._census.waits,
            coroutines=self._try("coroutines", self._census.coroutines, ()),
            tasks=tuple(tasks),
            left_out=len(found) - len(tasks),
            uncounted=len(found) - len(seen),
            edges=tuple(relations.edges),
            deadlocks=deadlocks,
            loops=tuple(self._loop(loop, seen, tasks) for loop in timed),
            threads=self._threads(timed),
            executors=self._executors(),
            pools=tuple(self._pools()),
            locks=locks,
            queues=queues,
            troubles=tuple(self._troubles),
            took_s=(time.monotonic_ns() - began_ns) / 1e9,
        )
        found.clear()
        self._census.seen.clear()
        return snapshot

    def _try(self, what: str, ask: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return ask()
        except Exception as error:
            self._troubles.append(f"{what}: {type(error).__name__}")
            return otherwise

    def _asked(self, what: str, sources: tuple[Callable[[], Any], ...]) -> list[Any]:
        found: list[Any] = []
        for source in sources:
            found += self._try(what, functools.partial(_list, source), [])
        return found

    def _find_tasks(self, timed: list[TimedLoop]) -> list[Any]:
        running: list[Any] = [loop for each in timed if (loop := each.reference()) is not None]
        loops: dict[int, Any] = {id(loop): loop for loop in (*LOOP_IDS.alive(), *running)}
        tasks = live_tasks(loop for loop in loops.values() if loop_type(loop) != "trio")
        for runner in loops.values():
            if loop_type(runner) == "trio":
                tasks += [task for task in list(runner.tasks) if not self._is_trios_own(task)]
        return tasks

    def _is_trios_own(self, task: Any) -> bool:
        """Whether trio keeps it for itself; there is one of each in every run."""
        return self._chains.function(task.coro) in _TRIOS_OWN

    def _tell(self, seen: SeenTasks, in_cycle: set[int]) -> list[LiveTask]:
        details = Details(self._chains, self._relations, self._memory)
        details.see_running(
            seen[place] for place, state in enumerate(paced(seen.states())) if state == "running"
        )
        first = {id(task) for task in paced(seen.tasks()) if _was_cancelled(task)} | in_cycle
        told = []
        for each in paced(chosen(seen, self._max_tasks, first)):
            try:
                told.append(details.task(each))
            except Exception as error:  # of somebody's own class
                self._troubles.append(f"a task of {each.function}: {type(error).__name__}")
        return sorted(told, key=lambda task: -(task.age_s or 0.0))

    def _with_orphans(self, tasks: list[LiveTask]) -> list[LiveTask]:
        relations = self._relations
        orphans = set()
        for task in paced(tasks):
            wait = task.wait
            if (
                wait is None
                or wait.kind not in _MAY_BE_ORPHANED
                or wait.has_timeout
                or task.loop_type == "trio"
            ):
                continue
            keys = relations.waiting.get(wait.target or 0, [task.id])
            if len(keys) > _MAX_WAITING:
                continue
            tasks_waiting = [relations.seen(key) for key in keys]
            waiting = [(seen.task, self._chains.chain(seen.coroutine)) for seen in tasks_waiting]
            if is_orphaned(self._chains, relations.seen(task.id).task, waiting):
                orphans.add(task.id)
        return [replace(task, is_orphan=True) if task.id in orphans else task for task in tasks]

    def _loop(self, timed: TimedLoop, seen: SeenTasks, tasks: list[LiveTask]) -> LiveLoop:
        iteration_ns = self._try("event loops", lambda: timed.timer.read().iteration_ns, -1)
        loop = timed.reference()
        mine = [each for each in tasks if each.loop == timed.loop_id and each.loop_type == timed.loop_type]
        running = next((each for each in mine if each.state == "running"), None)
        count = sum(_loop_of(task) is loop for task in paced(seen.tasks()))
        return LiveLoop(
            timed.loop_id,
            timed.loop_type,
            timed.thread_ident,
            iteration_ns / 1e9 if iteration_ns >= 0 else None,
            running.id if running is not None else None,
            running.coroutine if running is not None else "",
            count,
        )

    def _threads(self, timed: list[TimedLoop]) -> tuple[LiveThread, ...]:
        if not self._with_threads:
            return ()
        loops = {loop.thread_ident: loop.loop_id for loop in timed}
        return self._try("threads", lambda: live_threads(loops), ())

    def take_levels(self) -> Snapshot:
        """Ask how full executors and connection pools are, and look at threads if that is wanted."""
        began_ns, began_unix_ns = time.monotonic_ns(), time.time_ns()
        timed = [loop for loop in self._asked("event loops", SOURCES.loops) if loop.is_running]
        threads = self._threads(timed)
        executors, pools = self._executors(), tuple(self._pools())
        return Snapshot(
            taken_unix_ns=began_unix_ns,
            pid=os.getpid(),
            python=platform.python_version(),
            threads=threads,
            executors=executors,
            pools=pools,
            troubles=tuple(self._troubles),
            took_s=(time.monotonic_ns() - began_ns) / 1e9,
        )

    def _executors(self) -> tuple[LiveExecutor, ...]:
        return tuple(
            LiveExecutor(level.name, level.kind, level.active, level.idle, level.limit, level.queued)
            for level in self._asked("executors", SOURCES.executors)
        )

    def _pools(self) -> list[LivePool]:
        return self._asked("connection pools", SOURCES.pools)


def _list(source: Callable[[], Iterable[Any]]) -> list[Any]:
    return list(source())


def _loop_of(task: Any) -> Any:
    try:
        return task.get_loop() if hasattr(task, "get_loop") else task._runner
    except Exception:  # of somebody's own class
        return None


def _was_cancelled(task: Any) -> bool:
    try:
        return cancel_requests(task) > 0
    except Exception:  # the same
        return False


_taker = _Taker()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_taker.begin)


def take(*, max_tasks: int = MAX_TASKS, with_threads: bool = True) -> Snapshot:
    """Look at this process.

    To be called from a thread of its own: while it looks it holds up an event loop for a few milliseconds at
    a time at most, but the one of its own thread for the whole of it. Never raises for what it finds.

    Args:
        max_tasks: How many tasks are told in detail; all are counted.
        with_threads: Whether threads are told.
    """
    return _taker.take(max_tasks, with_threads)


def take_levels(*, with_threads: bool = False) -> Snapshot:
    """Look only how full executors and connection pools are: quick, however many tasks there are.

    Args:
        with_threads: Whether threads are told, too.
    """
    return _Taking(Memory(), 0, with_threads).take_levels()
