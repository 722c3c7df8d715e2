"""What a snapshot tells of tasks: each by itself, how many of a kind, and who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

TaskState = Literal["running", "scheduled", "waiting"]

WaitKind = Literal[
    "sleep",
    "timeout",
    "gather",
    "wait",
    "taskgroup",
    "lock",
    "semaphore",
    "condition",
    "event",
    "queue",
    "stream_io",
    "executor",
    "db_pool",
    "http_pool",
    "task",
    "future",
]
WAIT_KINDS: tuple[WaitKind, ...] = get_args(WaitKind)
"""For what a task waits. `timeout` is a modifier: it is the kind only where nobody can tell what is inside of
it. A barrier counts as `condition`, `future` is whatever has no better name."""


@dataclass(frozen=True, slots=True)
class FramePlace:
    """A place in a program; the frame itself is never kept.

    Attributes:
        function: `module.qualname`.
        file: Of its code.
        line: 0 where it is not known.
    """

    function: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        """Say it as stacks do: `module.qualname (file:line)`."""
        return f"{self.function} ({self.file}:{self.line})"


@dataclass(frozen=True, slots=True)
class Wait:
    """What a task waits for.

    Attributes:
        kind: One of `WAIT_KINDS`; what is inside of a timeout, where there is one.
        has_timeout: Whether somebody is going to end this wait: `wait_for`, `asyncio.timeout`.
        for_s: How long it has waited; None: unknown.
        is_exact: Whether it is that long; else it is at least that long, as earlier snapshots saw it.
        target: `LiveLock.id` or `LiveQueue.id` of what it waits for, else the `id()` of the future; None: not
            known.
        target_name: What that is called: a task's name, where a lock was made, the type of the future.
        tasks: `LiveTask.id` of the tasks that it waits for.
    """

    kind: WaitKind
    has_timeout: bool = False
    for_s: float | None = None
    is_exact: bool = False
    target: int | None = None
    target_name: str = ""
    tasks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveTask:
    """A task that is not done.

    Attributes:
        id: Its `id()`; another task may have it later.
        name: Its name.
        coroutine: `module.qualname` of the coroutine function, as metrics have it.
        state: `running`, `scheduled` (ready to) or `waiting`.
        loop: `asyncio.eventloop.id`; None: unknown, or beyond the limit.
        loop_type: `selector`, `uvloop`, `trio` and so on.
        age_s: Since it was created; None: unknown.
        busy_s: Time inside of its steps; None: kept by coroutine function only.
        steps: How many there were; None: unknown.
        wait: What it waits for; None unless it waits.
        frames: At most three of where it stands, the innermost first.
        at: The innermost of the application's own, if none of `frames` is; else None.
        created_at: `module:line` or `file:line` where it was created; empty: unknown.
        created_by: Name of the task that created it; empty: unknown.
        cancel_requests: How often it was asked to end and has not got over it (`Task.cancelling()`).
        trace_id: Of the trace that its context is in, hexadecimal; empty: none.
        span_id: The same.
        is_orphan: Whether it waits for a future that nobody else has: nobody can wake it.
    """

    id: int
    name: str
    coroutine: str
    state: TaskState
    loop: int | None = None
    loop_type: str = ""
    age_s: float | None = None
    busy_s: float | None = None
    steps: int | None = None
    wait: Wait | None = None
    frames: tuple[FramePlace, ...] = ()
    at: FramePlace | None = None
    created_at: str = ""
    created_by: str = ""
    cancel_requests: int = 0
    trace_id: str = ""
    span_id: str = ""
    is_orphan: bool = False


@dataclass(frozen=True, slots=True)
class CoroutineCount:
    """All live tasks of one coroutine function.

    Attributes:
        coroutine: `module.qualname`; `_other` for all beyond the limit.
        count: How many.
        states: How many in each state.
        waits: How many wait for what, by kind.
    """

    coroutine: str
    count: int
    states: dict[str, int] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edge:
    """Somebody waits for somebody.

    Attributes:
        waiter: `LiveTask.id`.
        on: `LiveTask.id` of whom it waits for.
        kind: `task`, `gather`, `wait`, `taskgroup`, or of the lock between them.
        lock: `LiveLock.id` of that; None: there is none.
    """

    waiter: int
    on: int
    kind: WaitKind
    lock: int | None = None


@dataclass(frozen=True, slots=True)
class Deadlock:
    """Tasks that wait for each other, and nobody else can wake one of them.

    Attributes:
        edges: In its order: the `on` of each is the `waiter` of the next, that of the last of the first.
        names: The tasks' names in the same order.
        coroutines: The tasks' coroutine functions.
        locks: What is between each and the next; empty where it waits for the task itself.
    """

    edges: tuple[Edge, ...]
    names: tuple[str, ...]
    coroutines: tuple[str, ...]
    locks: tuple[str, ...]
