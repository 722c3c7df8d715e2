"""The numbers of one window, ten seconds as a rule: what the rules judge, and nothing else.

Times are seconds, shares are of the window's length, and what nobody can tell is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_concurrency.diagnosis import records


@dataclass(frozen=True, slots=True)
class LoopNumbers:
    """One event loop.

    Attributes:
        name: Its id: `0`, `1`, …, or `_other`.
        kind: `selector`, `uvloop`, and so on.
        active: U: share of time in which it did not wait for events.
        cpu: C: share of time in which its thread was on a CPU.
        runqueue: R: share in which its thread was ready and had none.
        blocked: B: share in which it was active, and neither.
        iterations: I: iterations a second.
        empty: Z: share of them that looked for events, others being due, and found none.
        events: Events a second.
        delay_p95_s: D: what callbacks waited for their turn.
        longest_s: S: the longest iteration, the present one included.
        holding_s: For how long the present iteration lasts.
        ready: Callbacks ready to run at the end.
        has_kinds: Whether it is known how iterations began.
    """

    name: str
    kind: str = ""
    active: float = 0.0
    cpu: float | None = None
    runqueue: float | None = None
    blocked: float | None = None
    iterations: float = 0.0
    empty: float = 0.0
    events: float = 0.0
    delay_p95_s: float = 0.0
    longest_s: float = 0.0
    holding_s: float = 0.0
    ready: int | None = None
    has_kinds: bool = True


@dataclass(frozen=True, slots=True)
class StallNumbers:
    """One stall of a loop that went on or ended in the window; see `hooks.stalls.Stall`."""

    loop: str
    cause: str
    took_s: float
    function: str = ""
    call: str = ""
    file: str = ""
    line: int = 0
    task: str = ""
    frames: tuple[str, ...] = ()
    looks: int = 0
    trace: str = ""
    is_on: bool = False


@dataclass(frozen=True, slots=True)
class TaskNumbers:
    """All tasks of one coroutine function.

    Attributes:
        function: `module.qualname`.
        created: In the window.
        completed: The same.
        live: Now.
        created_ever: Since the program began.
        completed_ever: The same.
        busy_s: Time inside steps, in the window.
        steps: In the window.
        finished: Of the completed ones, those that returned.
        median_s: Creation to end of these, half of them took no longer.
        longest_s: The longest of these.
        sees_steps: Whether `busy_s` and `steps` are known.
    """

    function: str
    created: int = 0
    completed: int = 0
    live: int = 0
    created_ever: int = 0
    completed_ever: int = 0
    busy_s: float = 0.0
    steps: int = 0
    finished: int = 0
    median_s: float = 0.0
    longest_s: float = 0.0
    sees_steps: bool = True


@dataclass(frozen=True, slots=True)
class HolderNumbers:
    """Who has a connection, or a lock.

    Attributes:
        who: Name of the task or thread.
        held_s: For how long.
        function: Its coroutine function, where that is known.
        frames: Where it stands, the innermost first.
        is_gone: Whether it is a task that has ended meanwhile; None where nobody can tell.
    """

    who: str
    held_s: float
    function: str = ""
    frames: tuple[str, ...] = ()
    is_gone: bool | None = None


@dataclass(frozen=True, slots=True)
class PoolNumbers:
    """All connection pools of one name.

    Attributes:
        name: Of the pool.
        kind: `db` or `http`.
        used: Connections in use, at the end.
        limit: How many there may be; None without a limit.
        pending: Who waits for one, at the end.
        samples: How often it was looked at in the window.
        full: In how many looks all were in use and somebody waited.
        waits: Who had to wait, and got one.
        wait_p95_s: How long they waited.
        timeouts: Who was sent away.
        use_p95_s: How long connections were in use, of those that came back.
        uses: How many came back.
        query_p95_s: How long their queries took; None where nobody tells.
        holders: Who has one, the longest first.
        connect_p95_s: What it took to make one.
        longest_pending_s: For how long the first of those waits that do; 0 where nobody looked.
    """

    name: str
    kind: str = "db"
    used: int = 0
    limit: int | None = None
    pending: int = 0
    samples: int = 0
    full: int = 0
    waits: int = 0
    wait_p95_s: float = 0.0
    timeouts: int = 0
    use_p95_s: float = 0.0
    uses: int = 0
    query_p95_s: float | None = None
    holders: tuple[HolderNumbers, ...] = ()
    connect_p95_s: float = 0.0
    longest_pending_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """All work items of one function, in one executor.

    Attributes:
        function: `module.qualname`.
        count: How many ended in the window.
        median_s: How long half of them took at most, of all so far.
        count_ever: How many that is the median of.
        longest_s: The longest of the window.
    """

    function: str
    count: int
    median_s: float
    count_ever: int
    longest_s: float


@dataclass(frozen=True, slots=True)
class ExecutorNumbers:
    """All executors of one name.

    Attributes:
        name: Of the executor.
        kind: `thread`, `process`, `anyio` and so on.
        active: Workers at work, at the end; None where nobody can tell.
        limit: How many there may be.
        queued: Work items in line, at the end.
        samples: How often it was looked at in the window.
        full: In how many looks all workers were at work and somebody was in line.
        lonely: In how many looks one worker of several was at work, and nobody in line.
        submitted: Work items handed in.
        completed: Work items that ended.
        queue_p95_s: How long they were in line.
        run_p50_s: How long they ran.
        transfer_s: What sending them to other processes and back took, all together.
        run_s: How long they ran, all together.
        runs: By function.
        waiting_workers: Workers that wait for the future of another work item; None: nobody looked.
        worker_busy_s: What each worker was busy for, where that is known.
        stacks: Where workers that wait stand.
    """

    name: str
    kind: str = "thread"
    active: int | None = None
    limit: int | None = None
    queued: int | None = None
    samples: int = 0
    full: int = 0
    lonely: int = 0
    submitted: int = 0
    completed: int = 0
    queue_p95_s: float = 0.0
    run_p50_s: float = 0.0
    transfer_s: float = 0.0
    run_s: float = 0.0
    runs: tuple[RunNumbers, ...] = ()
    waiting_workers: int | None = None
    worker_busy_s: tuple[float, ...] = ()
    stacks: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class LockNumbers:
    """All locks, queues and so on of one kind and name.

    Attributes:
        kind: `lock`, `semaphore`, `queue_get` and so on.
        name: Where it was made; empty where that is not kept.
        waits: Waits that began in the window.
        wait_s: What tasks waited, all together, those that still wait included.
        waiting: Tasks that wait, at the end.
        samples: How often it was looked at in the window.
        crowded: In how many looks five or more waited.
        hold_p95_s: How long it was held; None where nobody tells.
        longest_s: The longest wait that ended in the window.
        holder: Who has it, at the end; None where nobody looked.
    """

    kind: str
    name: str = ""
    waits: int = 0
    wait_s: float = 0.0
    waiting: int = 0
    samples: int = 0
    crowded: int = 0
    hold_p95_s: float | None = None
    longest_s: float = 0.0
    holder: HolderNumbers | None = None


@dataclass(frozen=True, slots=True)
class ThreadNumbers:
    """A thread.

    Attributes:
        name: Its name.
        cpu: Share of the window in which it was on a CPU.
        runs_loop: Whether an event loop runs in it.
        stack: Where it was at the end, the innermost frame first.
        function: The application's function in there.
    """

    name: str
    cpu: float = 0.0
    runs_loop: bool = False
    stack: tuple[str, ...] = ()
    function: str = ""


@dataclass(frozen=True, slots=True)
class FailureNumbers:
    """Failures that nobody looked at, of one kind and type of exception."""

    kind: str
    error_type: str = ""
    count: int = 0
    function: str = ""


@dataclass(frozen=True, slots=True)
class RequestNumbers:
    """Requests that were served: how many, how long, and what they were used to take."""

    count: int = 0
    p95_s: float = 0.0
    baseline_p95_s: float | None = None
    open: int = 0


@dataclass(frozen=True, slots=True)
class WaitNumbers:
    """For what tasks wait, by a snapshot: kind, peer, how many, how long together."""

    kind: str
    peer: str = ""
    tasks: int = 0
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StuckTask:
    """A task that a snapshot found in trouble.

    Attributes:
        kind: `cycle`: it waits for itself, through others; `orphan`: nobody can wake it; `cancelled`: it
            was asked to end, and goes on.
        name: Of the task.
        function: Its coroutine function.
        for_s: For how long, as far as that is known.
        waits_for: What it waits for.
        frames: Where it stands, the innermost first.
        cycle: The tasks and locks of the cycle, in its order.
        trace: Id of its trace.
    """

    kind: str
    name: str
    function: str = ""
    for_s: float = 0.0
    waits_for: str = ""
    frames: tuple[str, ...] = ()
    cycle: tuple[str, ...] = ()
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """What one process did in one window.

    Attributes:
        began_unix_ns: Its beginning.
        ended_unix_ns: Its end.
        loops: Event loops that ran.
        stalls: Stalls of theirs.
        gil_wait_mean_s: G: what a thread waits for the GIL; None where nobody probes.
        gil_wait_max_s: Gx.
        gil_probes: How many waits that is the mean of.
        has_gil: Whether there is one.
        cpu: P: CPU time of the whole process by wall-clock time.
        throttled: T: share of time in which the cgroup had used up its quota; None where nobody tells.
        gc_share: Share of time in the garbage collector.
        gc_longest_s: Its longest pause.
        gc_pauses: How many pauses.
        threads: Those that took CPU time, the busiest first.
        tasks: By coroutine function.
        pools: Connection pools.
        executors: Pools of threads and processes.
        locks: What tasks wait for of each other.
        failures: What nobody handled.
        requests: What was served.
        waits: For what tasks wait.
        stuck: Tasks that do not go on.
        forks: Forks of this process, in the window.
        fork_threads: Threads that ran at a fork, the forking one left out; the most of any.
        fork_thread_names: Some of their names.
        fork_function: Who forked, as far as that shows.
    """

    began_unix_ns: int = 0
    ended_unix_ns: int = 0
    loops: tuple[LoopNumbers, ...] = ()
    stalls: tuple[StallNumbers, ...] = ()
    gil_wait_mean_s: float | None = None
    gil_wait_max_s: float | None = None
    gil_probes: int = 0
    has_gil: bool = True
    cpu: float | None = None
    throttled: float | None = None
    gc_share: float = 0.0
    gc_longest_s: float = 0.0
    gc_pauses: int = 0
    threads: tuple[ThreadNumbers, ...] = ()
    tasks: tuple[TaskNumbers, ...] = ()
    pools: tuple[PoolNumbers, ...] = ()
    executors: tuple[ExecutorNumbers, ...] = ()
    locks: tuple[LockNumbers, ...] = ()
    failures: tuple[FailureNumbers, ...] = ()
    requests: RequestNumbers = field(default_factory=RequestNumbers)
    waits: tuple[WaitNumbers, ...] = ()
    stuck: tuple[StuckTask, ...] = ()
    forks: int = 0
    fork_threads: int = 0
    fork_thread_names: tuple[str, ...] = ()
    fork_function: str = ""

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended_unix_ns - self.began_unix_ns) / 1e9

    def to_json(self) -> str:
        """Return one line of JSON."""
        return records.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Window:
        """Return what `to_json` was called on."""
        return records.from_json(cls, text)
