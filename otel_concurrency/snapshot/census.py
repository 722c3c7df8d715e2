"""The first look at every task: its state and for what it waits, for the counts."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from otel_concurrency.probes.pure import type_name
from otel_concurrency.snapshot.chains import Chains, Function, joined
from otel_concurrency.snapshot.live_tasks import CoroutineCount, TaskState, WaitKind
from otel_concurrency.snapshot.pace import offer, paced
from otel_concurrency.snapshot.wait_kinds import EXECUTOR, FUTURE, GATHER, TASK, Classified, classify

MAX_COROUTINES = 200
OTHER = "_other"

_AT_ONCE = 10_000

CHECKS_CANCEL = "_call_check_cancel"  # asyncio/futures.py, `_chain_future`: a future of another thread
TELLS_OF_SHIELD = "_outer_done_callback"  # asyncio/tasks.py, `shield`

_MAX_INNER = 5  # a `wait_for` inside of another's task, and so on
_CARRIER: Function = ("anyio._core._tasks", "TaskHandle._run_coro")
_GATHERING = getattr(asyncio.tasks, "_GatheringFuture", ())


class Seen(NamedTuple):
    """A task at the first look.

    Attributes:
        task: Itself.
        coroutine: What it runs.
        function: `module.qualname` of that.
        state: `running`, `scheduled` or `waiting`.
        kind: For what it waits.
        has_timeout: Whether it does so inside of a `wait_for`.
    """

    task: Any
    coroutine: Any
    function: str
    state: TaskState
    kind: WaitKind | None
    has_timeout: bool


class SeenTasks(Sequence[Seen]):
    """What was seen, task by task.

    In columns: as many objects as there are tasks would bring a collection of the whole heap nearer, during
    which nobody runs.
    """

    def __init__(self) -> None:
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [], [])
        self._tasks = self._columns[0]

    def append(self, seen: Seen) -> None:
        """Add one."""
        for column, value in zip(self._columns, seen, strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, place: Any) -> Any:
        """Return what was seen at a place."""
        return Seen(*[column[place] for column in self._columns])

    def clear(self) -> None:
        """Let go of all, a part at a time: that takes long, too."""
        for column in self._columns:
            while column:
                del column[-_AT_ONCE:]
                offer()

    def tasks(self) -> list[Any]:
        """Return the tasks alone."""
        return self._tasks

    def states(self) -> list[TaskState]:
        """Return their states alone."""
        return self._columns[3]


class Census:
    """Looks at tasks once, and counts.

    Args:
        chains: Walks.

    Attributes:
        seen: What was seen, task by task.
        states: How many tasks are in each state.
        waits: How many wait for what.
        failed: Tasks that could not be asked.
    """

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._known: dict[tuple[tuple[Function, ...], str], Classified] = {}
        self.seen = SeenTasks()
        self.states: dict[str, int] = {}
        self.waits: dict[str, int] = {}
        self.failed = 0

    def count(self, tasks: Iterable[Any]) -> None:
        """Look at all of these."""
        for task in paced(tasks):
            try:
                seen = self._look(task)
            except Exception:  # a task or a coroutine of somebody's own
                self.failed += 1
                continue
            self.seen.append(seen)
            self.states[seen.state] = self.states.get(seen.state, 0) + 1
            if seen.kind is not None:
                self.waits[seen.kind] = self.waits.get(seen.kind, 0) + 1

    def coroutines(self) -> tuple[CoroutineCount, ...]:
        """Return the counts by coroutine function, the most numerous first."""
        by_function: dict[str, Counter[tuple[str, str]]] = {}
        for seen in paced(self.seen):
            counts = by_function.get(seen.function)
            if counts is None:
                counts = by_function[seen.function] = Counter()
            counts[seen.state, seen.kind or ""] += 1
        ranked = sorted(by_function.items(), key=lambda item: (-item[1].total(), item[0]))
        if len(ranked) > MAX_COROUTINES:
            rest = sum((counts for _, counts in ranked[MAX_COROUTINES:]), Counter[tuple[str, str]]())
            ranked = [*ranked[:MAX_COROUTINES], (OTHER, rest)]
        return tuple(_count(function, counts) for function, counts in ranked)

    def _look(self, task: Any) -> Seen:
        coroutine = coroutine_of(task)
        chain = self._chains.chain(coroutine)
        function = self._name(coroutine, chain)
        state = self._state(task, coroutine)
        if state != "waiting":
            return Seen(task, coroutine, function, state, None, False)
        kind, has_timeout = self._classified(task, chain)
        return Seen(task, coroutine, function, state, kind, has_timeout)

    def _state(self, task: Any, coroutine: Any) -> TaskState:
        if self._chains.is_running(coroutine):
            return "running"
        if is_trios(task):
            return "scheduled" if task._next_send_fn is not None else "waiting"
        waiter = getattr(task, "_fut_waiter", None)
        return "scheduled" if waiter is None or waiter.done() else "waiting"

    def _classified(self, task: Any, chain: list[Any], depth: int = 0) -> Classified:
        functions = tuple(self._chains.function(each) for each in reversed(chain))
        waiter = waiter_word(getattr(task, "_fut_waiter", None))
        known = self._known.get((functions, waiter))
        if known is None:
            known = self._known[functions, waiter] = classify(functions, waiter)
        if known.kind == "timeout" and chain and depth < _MAX_INNER:
            # Until 3.11, `wait_for` has a task of its own for what is inside of it.
            for held in self._chains.held(chain[-1]):
                if isinstance(held, asyncio.Task) and held is not task:
                    inner = self._classified(held, self._chains.chain(coroutine_of(held)), depth + 1)
                    return Classified(inner.kind, True)
        return known

    def _name(self, coroutine: Any, chain: list[Any]) -> str:
        if not chain or chain[0] is not coroutine:
            return type_name(type(coroutine))
        function = self._chains.function(chain[0])
        if function == _CARRIER and len(chain) > 1:
            function = self._chains.function(chain[1])
        return joined(function)


def _count(function: str, counts: Counter[tuple[str, str]]) -> CoroutineCount:
    states: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    for (state, kind), count in counts.items():
        states[state] += count
        if kind:
            waits[kind] += count
    return CoroutineCount(function, states.total(), dict(states), dict(waits))


def coroutine_of(task: Any) -> Any:
    """Return what a task runs."""
    return task.coro if is_trios(task) else task.get_coro()


def is_trios(task: Any) -> bool:
    """Whether a task is trio's."""
    return type(task) is getattr(sys.modules.get("trio.lowlevel"), "Task", None)


def callbacks_of(future: Any) -> list[Any]:
    """Return what is called when a future is done."""
    entries: list[tuple[Any, Any]] = list(getattr(future, "_callbacks", None) or [])
    return [callback for callback, _ in entries]


def waiter_word(waiter: Any) -> str:
    """Return what `classify` takes for a `_fut_waiter`."""
    kind = type(waiter)
    if issubclass(kind, asyncio.Task):
        return TASK
    if issubclass(kind, _GATHERING):
        return GATHER
    for callback in callbacks_of(waiter):
        name = getattr(callback, "__name__", "")
        if name == CHECKS_CANCEL:
            return EXECUTOR
        if name == TELLS_OF_SHIELD:
            return TASK
    return FUTURE
