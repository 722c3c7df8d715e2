"""A closer look, where the numbers ask for one: who is stuck, who has what others wait for.

It takes a snapshot, which costs something, so it pays for itself: the more one took, the longer until the
next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from otel_concurrency.diagnosis.evidence import STEADY
from otel_concurrency.diagnosis.flow_rules import BASELINE_FACTOR, IDLE_LOOP
from otel_concurrency.diagnosis.resource_rules import LOCKS
from otel_concurrency.diagnosis.window import (
    ExecutorNumbers,
    HolderNumbers,
    LockNumbers,
    PoolNumbers,
    StuckTask,
    WaitNumbers,
    Window,
)
from otel_concurrency.probes.stacks import look
from otel_concurrency.probes.thread_frames import thread_frames
from otel_concurrency.probes.thread_states import python_threads
from otel_concurrency.probes.thread_waits import waits_for
from otel_concurrency.snapshot import Snapshot

MAX_TASKS = 1_000
MAX_LIVE = 20_000
"""With more tasks than these nobody looks closer."""

PATROL_WINDOWS = 6
"""Without any reason, it looks every so many windows."""

ROUTINE_SHARE = 0.0005
CAUSE_SHARE = 0.005
"""Share of a CPU that looking may take: on patrol, and with a reason."""

_MODIFIERS = ("gather", "wait", "taskgroup", "task", "timeout")
_MAX_STACKS = 3

Take = Callable[..., Snapshot]


class Closer:
    """Looks closer, and puts what it sees into the window.

    Args:
        take: Takes a snapshot.
        clock: Monotonic time, s.
        cpu_clock: CPU time of this thread, s.
    """

    def __init__(
        self,
        take: Take,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._take = take
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._quiet_until_s = {True: 0.0, False: 0.0}  # with a cause, and without
        self._patrol_at = 1
        self._windows = 0
        self._cancelled: dict[tuple[int, str], float] = {}
        self._orphans: dict[tuple[int, str], float] = {}
        self._still: dict[tuple[str, str], int] = {}
        self._waits: tuple[WaitNumbers, ...] = ()

    def look(self, window: Window, serves: str = "") -> Window:
        """Return the window, with more in it where that was asked for.

        Args:
            window: As the meters made it.
            serves: The coroutine function of requests.
        """
        self._windows += 1
        window = replace(window, executors=_with_waiting_workers(window.executors))
        has_cause = self._has_cause(window)
        now_s = self._clock()
        if not _is_slow(window):
            self._waits = ()
        window = replace(window, waits=self._waits)  # as of the last look, until there is another
        if sum(task.live for task in window.tasks) > MAX_LIVE or not (
            has_cause or self._windows >= self._patrol_at
        ):
            return window
        if now_s < self._quiet_until_s[has_cause]:
            return window
        began_s = self._cpu_clock()
        snapshot = self._take(max_tasks=MAX_TASKS, with_threads=False)
        cost_s = self._cpu_clock() - began_s
        self._quiet_until_s = {True: now_s + cost_s / CAUSE_SHARE, False: now_s + cost_s / ROUTINE_SHARE}
        self._patrol_at = self._windows + PATROL_WINDOWS
        return self._seen(window, snapshot, serves, now_s)

    def _has_cause(self, window: Window) -> bool:
        return (
            bool(self._cancelled)
            or self._is_a_lock_stuck(window)
            or any(pool.full >= STEADY or pool.timeouts for pool in window.pools)
            or any(lock.kind in LOCKS and (lock.crowded >= STEADY or lock.waiting) for lock in window.locks)
            or _is_slow(window)
        )

    def _is_a_lock_stuck(self, window: Window) -> bool:
        """Whether somebody waits for a lock for which no wait has ended for two windows."""
        before, self._still = self._still, {}
        for lock in window.locks:
            if lock.waiting and not lock.longest_s and lock.kind in LOCKS:
                self._still[lock.kind, lock.name] = before.get((lock.kind, lock.name), 0) + 1
        return any(count >= 2 for count in self._still.values())

    def _seen(self, window: Window, snapshot: Snapshot, serves: str, now_s: float) -> Window:
        if _is_slow(window):
            self._waits = _waits(snapshot, serves)
        return replace(
            window,
            pools=tuple(_with_holders(pool, snapshot) for pool in window.pools),
            locks=tuple(_with_holder(lock, snapshot) for lock in window.locks),
            waits=self._waits,
            stuck=(*_cycles(snapshot), *self._cancelled_ones(snapshot, now_s), *self._lost(snapshot, now_s)),
        )

    def _cancelled_ones(self, snapshot: Snapshot, now_s: float) -> list[StuckTask]:
        before, self._cancelled = self._cancelled, {}
        found = []
        for task in snapshot.tasks:
            if task.cancel_requests:
                key = (task.id, task.name)
                since_s = self._cancelled[key] = before.get(key, now_s)
                found.append(_stuck("cancelled", task, now_s - since_s))
        return found

    def _lost(self, snapshot: Snapshot, now_s: float) -> list[StuckTask]:
        before, self._orphans = self._orphans, {}
        found = []
        for task in snapshot.orphans:
            key = (task.id, task.name)
            since_s = self._orphans[key] = before.get(key, now_s)
            waited_s = task.wait.for_s if task.wait is not None and task.wait.for_s is not None else 0.0
            found.append(_stuck("orphan", task, max(waited_s, now_s - since_s)))
        return found


def _is_slow(window: Window) -> bool:
    requests = window.requests
    return (
        requests.baseline_p95_s is not None
        and requests.p95_s >= BASELINE_FACTOR * requests.baseline_p95_s
        and all(loop.active < IDLE_LOOP for loop in window.loops)
    )


def _frames(task: Any) -> tuple[str, ...]:
    frames = [str(frame) for frame in task.frames]
    return (*frames, str(task.at)) if task.at is not None else tuple(frames)


def _stuck(kind: str, task: Any, for_s: float) -> StuckTask:
    return StuckTask(
        kind,
        task.name,
        task.coroutine,
        for_s,
        waits_for=(task.wait.target_name or task.wait.kind) if task.wait is not None else "",
        frames=_frames(task),
        trace=task.trace_id,
    )


def _cycles(snapshot: Snapshot) -> list[StuckTask]:
    tasks = {task.id: task for task in snapshot.tasks}
    found = []
    for deadlock in snapshot.deadlocks:
        # Where it begins is chance: it is told the same each time.
        first = deadlock.names.index(min(deadlock.names)) if deadlock.names else 0
        cycle = (*deadlock.names[first:], *deadlock.names[:first])
        for edge, name, coroutine, lock in zip(
            deadlock.edges, deadlock.names, deadlock.coroutines, deadlock.locks, strict=False
        ):
            task = tasks.get(edge.waiter)
            for_s = task.wait.for_s if task is not None and task.wait is not None else None
            found.append(
                StuckTask(
                    "cycle",
                    name,
                    coroutine,
                    for_s or 0.0,
                    waits_for=lock or "a task",
                    frames=_frames(task) if task is not None else (),
                    cycle=cycle,
                    trace=task.trace_id if task is not None else "",
                )
            )
    return found


def _with_holders(pool: PoolNumbers, snapshot: Snapshot) -> PoolNumbers:
    tasks = {task.name: task for task in snapshot.tasks}
    threads = {thread.name for thread in python_threads().values()}
    is_whole = not snapshot.left_out and not snapshot.troubles

    def known(holder: HolderNumbers) -> HolderNumbers:
        task = tasks.get(holder.who)
        if task is None:
            is_gone = holder.who not in threads if is_whole else None
            return replace(holder, is_gone=is_gone and holder.held_s > snapshot.took_s)
        return replace(holder, function=task.coroutine, frames=_frames(task), is_gone=False)

    waits = [each.longest_wait_s or 0.0 for each in snapshot.pools if each.name == pool.name]
    return replace(
        pool,
        holders=tuple(known(holder) for holder in pool.holders),
        longest_pending_s=max(waits, default=0.0),
    )


def _with_holder(lock: LockNumbers, snapshot: Snapshot) -> LockNumbers:
    tasks = {task.id: task for task in snapshot.tasks}
    alike = [each for each in snapshot.locks if each.kind == lock.kind and each.waiting]
    alike = [each for each in alike if not lock.name or each.name == lock.name]
    most = max(alike, key=lambda each: len(each.waiting), default=None)
    task = tasks.get(most.holders[0]) if most is not None and most.holders else None
    if most is None or task is None:
        return lock
    holder = HolderNumbers(task.name, most.held_s or 0.0, task.coroutine, _frames(task))
    return replace(lock, holder=holder)


def _waits(snapshot: Snapshot, serves: str) -> tuple[WaitNumbers, ...]:
    """Count for what requests wait; what waits for another task says nothing by itself."""
    counts: dict[tuple[str, str], int] = {}
    for task in snapshot.tasks:
        if task.wait is None or task.wait.kind in _MODIFIERS or (serves and task.coroutine != serves):
            continue
        key = (task.wait.kind, task.wait.target_name if task.wait.kind in ("db_pool", "http_pool") else "")
        counts[key] = counts.get(key, 0) + 1
    return tuple(WaitNumbers(kind, peer, count, float(count)) for (kind, peer), count in counts.items())


def _with_waiting_workers(executors: tuple[ExecutorNumbers, ...]) -> tuple[ExecutorNumbers, ...]:
    """Look whether workers wait for work of others, where nothing was done though all are at work."""
    if not any(_might_be_stuck(executor) for executor in executors):
        return executors
    stacks = []
    for frame in thread_frames().values():
        if waits_for(frame) == "future" and (stack := look(frame)) is not None:
            stacks.append(stack.frames)
    return tuple(
        replace(executor, waiting_workers=len(stacks), stacks=tuple(stacks[:_MAX_STACKS]))
        if _might_be_stuck(executor)
        else executor
        for executor in executors
    )


def _might_be_stuck(executor: ExecutorNumbers) -> bool:
    return executor.kind == "thread" and executor.full >= STEADY and not executor.completed
