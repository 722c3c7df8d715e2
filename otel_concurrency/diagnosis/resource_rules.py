"""Rules 8, 9 and 10: what tasks share, and wait for: connections, workers, locks."""

from __future__ import annotations

from otel_concurrency.diagnosis.evidence import MAJORITY, STEADY, percent, took
from otel_concurrency.diagnosis.finding import CONTENTION, Culprit, Evidence, Finding, StackCount, sampled
from otel_concurrency.diagnosis.window import (
    ExecutorNumbers,
    HolderNumbers,
    LockNumbers,
    PoolNumbers,
    RunNumbers,
    Window,
)

POOL_WAIT_S = 0.1
CONNECT_FACTOR = 2.0
"""A wait that is no longer than so many times what it takes to connect is the connecting."""

LEAK_S = 60.0
LEAK_WINDOWS = 6
"""Who has a connection for so many windows, or for a minute, does not bring it back."""

HELD_FACTOR = 5.0
"""Connections in use for so many times what their queries take are held for something else."""

QUEUE_WAIT_S = 0.1
LEAST_ITEMS = 5

LOCK_WAIT = 1.0
CROWD = 5
LOCKS = ("lock", "semaphore", "queue_put")
"""What is contended where tasks wait for it; who waits for an event, or for an item, is idle."""

_DRIVERS = {
    "db": ("asyncpg", "psycopg", "sqlalchemy", "redis", "pymongo", "aiomysql", "asyncmy"),
    "http": ("httpx", "httpcore", "aiohttp", "anyio"),
}
_STREAMS = "asyncio.streams."  # of whom they are does not show here

History = tuple[Window, ...]


def pool_exhausted(window: Window, history: History) -> list[Finding]:
    """Fire when somebody waits for a connection while others have them all."""
    return [found for pool in window.pools if (found := _exhausted(pool, window)) is not None]


def _exhausted(pool: PoolNumbers, window: Window) -> Finding | None:
    waited_long = (
        pool.waits > 0
        and pool.wait_p95_s >= POOL_WAIT_S
        and pool.wait_p95_s > CONNECT_FACTOR * pool.connect_p95_s
    )
    if not (pool.full >= STEADY or waited_long or pool.timeouts):
        return None
    holder, why, advice = _why_full(pool, window)
    sent_away = f", and {pool.timeouts} were sent away" if pool.timeouts else ""
    waited = (
        f"{took(pool.longest_pending_s)} by now, {pool.pending} of them"
        if pool.longest_pending_s > pool.wait_p95_s
        else f"{took(pool.wait_p95_s)} (p95)"
        if pool.waits
        else f"in vain so far, {pool.pending} of them"
    )
    return Finding(
        "pool_exhausted",
        pool.name,
        "crit" if pool.timeouts else "warn",
        f"All {pool.limit or pool.used} connections of {pool.name} were taken; who wanted one waited "
        f"{waited}{sent_away}: {why}.",
        bottleneck=CONTENTION,
        evidence=(
            Evidence("looks with all taken and somebody waiting", pool.full, "{look}", STEADY),
            Evidence("wait p95", pool.wait_p95_s, "s", POOL_WAIT_S),
            Evidence("timeouts", pool.timeouts, "{timeout}", 1),
            Evidence("pending", pool.pending, "{request}"),
            Evidence("use p95", pool.use_p95_s, "s"),
            Evidence("held for longest", holder.held_s if holder else 0.0, "s", _leak_s(window)),
        ),
        culprit=Culprit(
            function=holder.function if holder else "",
            task=holder.who if holder else "",
            resource=pool.name,
        ),
        stacks=(StackCount(holder.frames),) if holder and holder.frames else (),
        advice=advice,
        confidence=sampled(pool.samples) if not pool.timeouts else "exact",
        is_event=bool(pool.timeouts),
    )


def _leak_s(window: Window) -> float:
    return min(LEAK_S, LEAK_WINDOWS * window.seconds)


def _why_full(pool: PoolNumbers, window: Window) -> tuple[HolderNumbers | None, str, str]:
    """Return who has a connection for longest, what is wrong, and what to do."""
    gone = next((holder for holder in pool.holders if holder.is_gone), None)
    oldest = max(pool.holders, key=lambda holder: holder.held_s, default=None)
    if gone is not None:
        return (
            gone,
            f"a leak, {gone.who} has ended and never gave its connection back",
            "Take connections with `async with pool.acquire()`, so that every way out gives them back.",
        )
    if oldest is not None and oldest.held_s > _leak_s(window):
        return (
            oldest,
            f"a leak, {oldest.who} has had one for {took(oldest.held_s)}",
            "Take connections with `async with pool.acquire()`, so that every way out gives them back.",
        )
    elsewhere = [holder for holder in pool.holders if _is_elsewhere(holder, pool.kind)]
    slow_use = pool.query_p95_s is not None and pool.use_p95_s > HELD_FACTOR * pool.query_p95_s
    if slow_use or (pool.holders and len(elsewhere) >= MAJORITY * len(pool.holders)):
        holder = elsewhere[0] if elsewhere else oldest
        who = (holder.function or holder.who) if holder else "somebody"
        return (
            holder,
            f"they are held across an await of something else, by {who}",
            "Give the connection back before awaiting anything else, and take it again after.",
        )
    return (
        oldest,
        "the pool is too small for what is asked of it",
        "Raise the pool's size if the database can take it, make queries shorter, or limit the concurrency.",
    )


def _is_elsewhere(holder: HolderNumbers, kind: str) -> bool:
    """Whether who has a connection awaits something that is not its library's."""
    own, others = _DRIVERS.get(kind, ()), [names for each, names in _DRIVERS.items() if each != kind]
    if not holder.frames or any(frame.startswith(own) for frame in holder.frames):
        return False
    foreign = tuple(name for names in others for name in names)
    return not holder.frames[0].startswith(_STREAMS) or any(
        frame.startswith(foreign) for frame in holder.frames
    )


def executor_saturated(window: Window, history: History) -> list[Finding]:
    """Fire when all workers of an executor are at work, and work waits in line."""
    return [found for executor in window.executors if (found := _saturated(executor)) is not None]


def _saturated(executor: ExecutorNumbers) -> Finding | None:
    waited_long = (
        executor.completed >= LEAST_ITEMS
        and executor.queue_p95_s >= QUEUE_WAIT_S
        and executor.queue_p95_s >= executor.run_p50_s
    )
    workers = executor.waiting_workers
    is_deadlock = (
        executor.full >= STEADY
        and not executor.completed
        and workers is not None
        and workers >= (executor.limit or 1)
    )
    if not (executor.full >= STEADY or waited_long):
        return None
    function = _longest_total(executor.runs)
    if is_deadlock:
        sentence = (
            f"Executor {executor.name} is deadlocked: each of its {executor.limit} workers waits for work "
            f"that has to wait for a worker, {executor.queued} in line."
        )
        advice = (
            "Do not wait in a worker for work of the same executor: await it outside, or use another one."
        )
    else:
        sentence = (
            f"All {executor.limit} workers of executor {executor.name} were at work and "
            f"{executor.queued or 0} work items in line, {took(executor.queue_p95_s)} (p95)"
            + (f"; most of the time goes to {function}." if function else ".")
        )
        advice = "More workers if the work waits, fewer and shorter work items if it computes, or a limit "
        advice += "before they are submitted."
    return Finding(
        "executor_saturated",
        executor.name,
        "crit" if is_deadlock else "warn",
        sentence,
        bottleneck=CONTENTION,
        evidence=(
            Evidence("looks with all at work and somebody in line", executor.full, "{look}", STEADY),
            Evidence("in line p95", executor.queue_p95_s, "s", max(QUEUE_WAIT_S, executor.run_p50_s)),
            Evidence("run p50", executor.run_p50_s, "s"),
            Evidence("in line now", executor.queued or 0, "{work_item}"),
            Evidence("workers that wait for work", workers or 0, "{worker}", executor.limit),
        ),
        culprit=Culprit(function=_standing(executor) if is_deadlock else function, resource=executor.name),
        stacks=tuple(StackCount(frames) for frames in executor.stacks[:3]),
        advice=advice,
        confidence=sampled(executor.samples),
        is_event=is_deadlock,
    )


def _longest_total(runs: tuple[RunNumbers, ...]) -> str:
    most = max(runs, key=lambda run: run.count * run.median_s, default=None)
    return most.function if most is not None else ""


def _standing(executor: ExecutorNumbers) -> str:
    """Return the function in which workers wait: the first frame that is no library's."""
    for frames in executor.stacks:
        for frame in frames:
            if not frame.startswith(("concurrent.", "threading.", "otel_concurrency.", "asyncio.")):
                return frame.partition(" ")[0]
    return ""


def lock_contention(window: Window, history: History) -> list[Finding]:
    """Fire when tasks wait for one lock all the time."""
    locks = [lock for lock in window.locks if lock.kind in LOCKS]
    total_s = sum(lock.wait_s for lock in locks)
    found = []
    for lock in locks:
        a_second = lock.wait_s / window.seconds if window.seconds else 0.0
        share = lock.wait_s / total_s if total_s else 0.0
        is_waited = a_second >= LOCK_WAIT and share >= MAJORITY
        if not is_waited and lock.crowded < STEADY:
            continue
        found.append(_contended(lock, a_second, share))
    return found


def _contended(lock: LockNumbers, a_second: float, share: float) -> Finding:
    what = {"queue_put": "a queue's free place"}.get(lock.kind, f"a {lock.kind}")
    name = f"{lock.kind} {lock.name}".strip()
    holder = lock.holder
    held = f"; held for {took(lock.hold_p95_s)} (p95)" if lock.hold_p95_s else ""
    by = f", which {holder.function or holder.who} has" if holder is not None else ""
    return Finding(
        "lock_contention",
        name,
        "warn",
        f"{a_second:.1f} tasks wait at any time for {what}{f' made at {lock.name}' if lock.name else ''}{by}"
        f"{held}: {percent(share)} of all such waiting.",
        bottleneck=CONTENTION,
        evidence=(
            Evidence("tasks that wait, on average", a_second, "{task}", LOCK_WAIT),
            Evidence("share of all waiting for locks", share, "1", MAJORITY),
            Evidence("looks with five or more waiting", lock.crowded, "{look}", STEADY),
            Evidence("waiting now", lock.waiting, "{task}", CROWD),
            Evidence("held p95", lock.hold_p95_s or 0.0, "s"),
        ),
        culprit=Culprit(
            function=holder.function if holder else "",
            task=holder.who if holder else "",
            resource=name,
        ),
        stacks=(StackCount(holder.frames),) if holder and holder.frames else (),
        advice="Hold it for shorter, without an await of something slow inside; or have more of it: a lock "
        "per key, a larger semaphore, a faster consumer.",
        confidence=sampled(lock.samples),
    )
