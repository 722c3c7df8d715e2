"""A snapshot: what a process is doing, frozen, JSON both ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from otel_concurrency.diagnosis import records
from otel_concurrency.snapshot.live_tasks import CoroutineCount, Deadlock, Edge, FramePlace, LiveTask


@dataclass(frozen=True, slots=True)
class LiveLoop:
    """An event loop that runs.

    Attributes:
        id: `asyncio.eventloop.id`; None beyond the limit.
        type: `selector`, `uvloop`, `trio` and so on.
        thread_ident: `LiveThread.ident` of who runs it; 0: unknown.
        iteration_s: For how long its present iteration lasts already; None: it waits for events, or nobody
            times it.
        task: `LiveTask.id` of the task that runs; None: none does, or nobody can tell.
        coroutine: That task's coroutine function; empty likewise.
        tasks: Live ones.
    """

    id: int | None
    type: str
    thread_ident: int = 0
    iteration_s: float | None = None
    task: int | None = None
    coroutine: str = ""
    tasks: int = 0


@dataclass(frozen=True, slots=True)
class LiveThread:
    """A thread that Python knows; ours and the telemetry's own are left out.

    Attributes:
        ident: `threading.get_ident()` there.
        native_id: The kernel's id.
        name: Its name.
        daemon: Whether the process ends without waiting for it.
        state: `running`, `syscall`, `sleep`, `lock_or_gil`, `idle_worker` or `unknown`, by the kernel.
        waits_for: What it waits for of other threads, by its frames: `condition`, `queue_get`, `future` and
            so on; empty: nothing, or nobody can tell.
        cpu_s: CPU time that it has taken; None: nobody tells.
        loop: Id of the event loop that runs in it; None: none, or beyond the limit.
        frames: Where it stands, the innermost first.
    """

    ident: int
    native_id: int
    name: str
    daemon: bool = False
    state: str = "unknown"
    waits_for: str = ""
    cpu_s: float | None = None
    loop: int | None = None
    frames: tuple[FramePlace, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveExecutor:
    """How full the executors of one name and kind are; what nobody can tell is None.

    Attributes:
        name: As in metrics.
        kind: `thread`, `process`, `interpreter`, `anyio`, `trio` or `mp_pool`.
        active: Workers that run something.
        idle: Workers that wait for work.
        limit: How many workers there may be; None without a limit, too.
        queued: Work items that wait for a worker.
    """

    name: str
    kind: str
    active: int | None = None
    idle: int | None = None
    limit: int | None = None
    queued: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionHolder:
    """Who has a connection: the name of a task or of a thread, and for how long."""

    who: str
    held_s: float


@dataclass(frozen=True, slots=True)
class LivePool:
    """A connection pool.

    Attributes:
        kind: `db` or `http`.
        name: As in metrics.
        used: Connections that somebody has.
        idle: Open ones that nobody has; None: nobody can tell.
        pending: Those that wait for one.
        limit: How many there may be; None without a limit.
        longest_wait_s: For how long the first of those waits; None: nobody does, or nobody tells.
        holders: Who has one, for the longest time first; at most ten.
    """

    kind: str
    name: str
    used: int
    idle: int | None = None
    pending: int = 0
    limit: int | None = None
    longest_wait_s: float | None = None
    holders: tuple[ConnectionHolder, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveLock:
    """A lock, semaphore, condition, event or barrier that somebody waits for, or that is known by name.

    Attributes:
        id: Its `id()`.
        kind: `lock`, `semaphore`, `condition` or `event`.
        name: Where it was made, `module:line`; empty: unknown.
        is_locked: Whether the next one has to wait; None: nobody can tell.
        waiting: `LiveTask.id` of those that wait, as far as they were looked at.
        holders: `LiveTask.id` of those that have it; empty: nobody, or nobody can tell.
        held_s: For how long the first of them has it; None: unknown.
    """

    id: int
    kind: str
    name: str = ""
    is_locked: bool | None = None
    waiting: tuple[int, ...] = ()
    holders: tuple[int, ...] = ()
    held_s: float | None = None


@dataclass(frozen=True, slots=True)
class LiveQueue:
    """A queue of asyncio's.

    Attributes:
        id: Its `id()`.
        name: Where it was made, `module:line`; empty: unknown.
        size: Items in it.
        limit: How many it may hold; None without a limit.
        getters: Tasks that wait for an item.
        putters: Tasks that wait for room.
    """

    id: int
    name: str = ""
    size: int = 0
    limit: int | None = None
    getters: int = 0
    putters: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at this process.

    Attributes:
        taken_unix_ns: When it began.
        took_s: How long it took; what is in it is as of some moment of that time.
        pid: Of the process.
        python: Version of the interpreter.
        probe: The way in which tasks are counted: `proxy`, `watcher`, `pure`; empty: they are not.
        task_count: Live tasks.
        states: How many of them in each state.
        waits: How many wait for what, by kind.
        coroutines: The same by coroutine function, the most numerous first.
        tasks: Those told in detail, the oldest first.
        left_out: How many are not among `tasks`.
        uncounted: How many are in `task_count`, but neither in `states` nor in `waits`: there are too many.
        edges: Who waits for whom.
        deadlocks: Tasks that wait for each other, for good.
        loops: Event loops that run.
        threads: Threads.
        executors: Thread and process pools.
        pools: Connection pools.
        locks: What is waited for or known by name.
        queues: The same.
        troubles: What could not be read, and why.
    """

    taken_unix_ns: int = 0
    took_s: float = 0.0
    pid: int = 0
    python: str = ""
    probe: str = ""
    task_count: int = 0
    states: dict[str, int] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    coroutines: tuple[CoroutineCount, ...] = ()
    tasks: tuple[LiveTask, ...] = ()
    left_out: int = 0
    uncounted: int = 0
    edges: tuple[Edge, ...] = ()
    deadlocks: tuple[Deadlock, ...] = ()
    loops: tuple[LiveLoop, ...] = ()
    threads: tuple[LiveThread, ...] = ()
    executors: tuple[LiveExecutor, ...] = ()
    pools: tuple[LivePool, ...] = ()
    locks: tuple[LiveLock, ...] = ()
    queues: tuple[LiveQueue, ...] = ()
    troubles: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Snapshot [{self.task_count} tasks, {len(self.threads)} threads, {self.took_s:.3f} s]>"

    @property
    def orphans(self) -> tuple[LiveTask, ...]:
        """Tasks that nobody can wake."""
        return tuple(task for task in self.tasks if task.is_orphan)

    def to_data(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return records.to_data(self)

    def to_json(self) -> str:
        """Return one line of JSON."""
        return records.to_json(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Snapshot:
        """Return what `to_data` was called on."""
        return records.from_data(cls, data)

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """Return what `to_json` was called on."""
        return records.from_json(cls, text)
