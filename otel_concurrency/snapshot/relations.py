"""Who waits for whom among the tasks of a census, and for which locks and queues."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from otel_concurrency.snapshot import sync_objects
from otel_concurrency.snapshot.awaits import awaited_by, awaited_tasks, has_timer
from otel_concurrency.snapshot.census import Seen
from otel_concurrency.snapshot.chains import Chains
from otel_concurrency.snapshot.graph import cycles
from otel_concurrency.snapshot.live import LiveLock, LiveQueue
from otel_concurrency.snapshot.live_tasks import Deadlock, Edge, WaitKind
from otel_concurrency.snapshot.pace import paced
from otel_concurrency.snapshot.sources import SOURCES

MAX_LOOKED_AT = 20_000
"""Waiting tasks whose relations are looked for."""

MAX_EDGES = 5_000

_FOR_TASKS = frozenset(("task", "gather", "wait", "taskgroup", "timeout"))
_NECESSARY = frozenset(("task", "gather", "taskgroup", "lock"))
_OWNED = frozenset(("lock", "semaphore"))


class Relations:
    """Looks for them once.

    Args:
        chains: Walks.

    Attributes:
        edges: Who waits for whom.
        on: `id()` of the lock or queue that a task waits for, by the task's.
        waiting: The tasks that wait for one of these, by its `id()`.
        is_cut: Whether there was more than is looked at.
    """

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._census: Sequence[Seen] = ()
        self._places: dict[int, int] = {}
        self._objects: dict[int, tuple[Any, WaitKind]] = {}
        self._holders: dict[int, list[int]] = {}
        self._held_ns: dict[int, int] = {}
        self.edges: list[Edge] = []
        self.on: dict[int, int] = {}
        self.waiting: dict[int, list[int]] = {}
        self.is_cut = False

    def look(self, census: Sequence[Seen]) -> None:
        """Look at all tasks that wait for others, and then at who has what they wait for."""
        self._census = census
        looked_at = 0
        for place, seen in enumerate(paced(census)):
            self._places[id(seen.task)] = place
            if not (seen.kind in _FOR_TASKS or seen.kind in sync_objects.KINDS or seen.has_timeout):
                continue
            looked_at += 1
            if looked_at > MAX_LOOKED_AT:
                self.is_cut = True
                continue
            try:
                self._look_at(seen)
            except Exception:  # of somebody's own class
                continue
        wanted = {key for key, (_, kind) in self._objects.items() if kind in _OWNED}
        if wanted:
            self._find_holders(wanted)

    def _look_at(self, seen: Seen) -> None:
        chain = self._chains.chain(seen.coroutine)
        key = id(seen.task)
        kind = seen.kind or "future"
        if kind in sync_objects.KINDS:
            it = sync_objects.awaited_object(self._chains, chain)
            if it is not None:
                self.on[key] = id(it)
                self._objects[id(it)] = (it, kind)
                self.waiting.setdefault(id(it), []).append(key)
        found = [id(task) for task in awaited_tasks(self._chains, seen.task, chain, kind)]
        if len(self.edges) + len(found) > MAX_EDGES:
            self.is_cut = True
            found = found[: max(0, MAX_EDGES - len(self.edges))]
        own: WaitKind = kind if kind in _FOR_TASKS and kind != "timeout" else "task"
        self.edges += [Edge(key, each, own) for each in found]

    def _find_holders(self, wanted: set[int]) -> None:
        for seen in paced(itertools.islice(self._census, MAX_LOOKED_AT)):
            try:
                chain = self._chains.chain(seen.coroutine)
                entered = Counter(
                    id(it) for it in sync_objects.exits_in(self._chains, chain, wanted, seen.kind)
                )
                key = id(seen.task)
                on = self.on.get(key)
                if on is not None and on in entered and sync_objects.is_entering(self._chains, chain):
                    entered[on] -= 1
                for it, times in entered.items():
                    if times > 0:
                        self._holders.setdefault(it, []).append(key)
            except Exception:
                continue
        now_ns = time.monotonic_ns()
        for key in wanted:
            it, kind = self._objects[key]
            self._ask_others(key, it, now_ns)
            for holder in self._holders.get(key, ()):
                for waiter in self.waiting.get(key, ()):
                    if len(self.edges) < MAX_EDGES:
                        self.edges.append(Edge(waiter, holder, kind, lock=key))
                    else:
                        self.is_cut = True

    def _ask_others(self, key: int, it: Any, now_ns: int) -> None:
        known = [holding for source in SOURCES.holders for holding in source(it)]
        if known:
            self._held_ns[key] = now_ns - known[0][1]
        owners = [task for task, _ in known] or [sync_objects.known_owner(it)]
        told = [id(task) for task in owners if id(task) in self._places]
        if told:
            self._holders[key] = told

    def add_what_python_knows(self) -> None:
        """Add who waits for whom as CPython keeps it (3.14), for waits that tell it in no other way."""
        known = {(edge.waiter, edge.on) for edge in self.edges}
        for seen in paced(self._census):
            for waiter in awaited_by(seen.task):
                pair = (id(waiter), id(seen.task))
                if pair not in known and id(waiter) in self._places and len(self.edges) < MAX_EDGES:
                    known.add(pair)
                    kind = self.seen(id(waiter)).kind
                    self.edges.append(Edge(*pair, kind if kind in _FOR_TASKS and kind else "wait"))

    def deadlocks(self) -> tuple[Deadlock, ...]:
        """Return the tasks that wait for each other for good, as far as that is certain."""
        necessary = [
            edge
            for edge in self.edges
            if edge.kind in _NECESSARY
            and (edge.kind != "lock" or len(self._holders.get(edge.lock or 0, ())) == 1)
        ]
        if not cycles(necessary):
            return ()
        can_be_woken = {edge.waiter for edge in necessary if self._has_timer(edge.waiter)}
        return tuple(self._deadlock(cycle) for cycle in cycles(necessary, can_be_woken))

    def seen(self, key: int) -> Seen:
        """Return what was seen of a task, by its `id()`."""
        return self._census[self._places[key]]

    def _has_timer(self, key: int) -> bool:
        seen = self.seen(key)
        return seen.has_timeout or has_timer(self._chains, self._chains.chain(seen.coroutine))

    def _deadlock(self, cycle: tuple[Edge, ...]) -> Deadlock:
        tasks = [self.seen(edge.waiter) for edge in cycle]
        return Deadlock(
            cycle,
            tuple(name_of(seen.task) for seen in tasks),
            tuple(seen.function for seen in tasks),
            tuple("" if edge.lock is None else self.name(edge.lock) for edge in cycle),
        )

    def name(self, key: int) -> str:
        """Return what a lock or queue is called."""
        it, kind = self._objects[key]
        return sync_objects.site_of(it) or f"{kind} {key:#x}"

    def locks(self) -> tuple[LiveLock, ...]:
        """Return the locks that somebody waits for, and those that are known by name."""
        found: dict[int, tuple[Any, str]] = dict(self._objects)
        for it, _ in (each for named in SOURCES.named for each in named()):
            found.setdefault(id(it), (it, sync_objects.kind_of(it)))
        return tuple(
            sync_objects.live_lock(
                it,
                kind,
                self.waiting.get(key, ()),
                self._holders.get(key, ()),
                self._held_ns[key] / 1e9 if key in self._held_ns else None,
            )
            for key, (it, kind) in found.items()
            if kind and kind != "queue"
        )

    def queues(self) -> tuple[LiveQueue, ...]:
        """Return the queues that somebody waits for, and those that are known by name."""
        found = {key: it for key, (it, kind) in self._objects.items() if kind == "queue"}
        for it, _ in (each for named in SOURCES.named for each in named()):
            if isinstance(it, asyncio.Queue):
                found.setdefault(id(it), it)
        return tuple(live for it in found.values() if (live := sync_objects.live_queue(it)) is not None)

    def let_go(self) -> None:
        """Refer to no lock and no queue any more."""
        self._objects.clear()


def name_of(task: Any) -> str:
    """Return the name of a task."""
    try:
        return str(task.get_name() if hasattr(task, "get_name") else task.name)
    except Exception:  # of somebody's own class
        return ""
