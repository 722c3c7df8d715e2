"""Rules 5, 6, 7 and 14: who holds an event loop."""

from __future__ import annotations

from otel_concurrency.diagnosis.evidence import (
    GIL_CALM_S,
    MAJORITY,
    busiest,
    culprit_of,
    is_contended,
    loop_hurt,
    loop_subject,
    percent,
    stacks_of,
    stalls_of,
    took,
    traces_of,
)
from otel_concurrency.diagnosis.finding import GRANULARITY, IO_WAIT, Culprit, Evidence, Finding
from otel_concurrency.diagnosis.window import LoopNumbers, StallNumbers, TaskNumbers, Window

BLOCKED_SHARE = 0.10
STALL_S = 0.1
BLOCKED_CRIT_S = 0.25

SPIN_ACTIVE = 0.95
SPIN_EMPTY = 0.95
SPIN_RATE = 10_000.0
SPIN_EVENTS = 0.01
"""Events an iteration: a loop that spins sees next to none."""

CPU_SHARE = 0.70
CPU_CRIT = 0.90
COARSE_S = 0.05
COARSE_STEP_S = 0.005
"""A function that has most of a loop's time in steps as long as this does too much in one."""

FINE_STEP_S = 20e-6
FINE_RATE = 20_000.0

NEVER_YIELDED_S = 1.0

_ADVICE = (  # the end of what was called, or a part of it: what to do instead
    (("time.sleep",), "`await asyncio.sleep(...)`."),
    (("requests.", "urllib", "http.client", "httpx._client.Client", "recv", "connect", "getaddrinfo", "ssl."),
     "Use an async client (httpx.AsyncClient, aiohttp), or `await asyncio.to_thread(...)`."),
    (("psycopg2", "sqlite3", "pymysql", "MySQLdb", "cursor", "execute"),
     "Use the driver's async interface, or `await asyncio.to_thread(...)`."),
    (("subprocess", "wait4", "waitpid", "communicate"), "`await asyncio.create_subprocess_exec(...)`."),
    (("fsync", "open", "read", "write", "pathlib", "shutil"), "`await asyncio.to_thread(...)`: files block."),
    (("acquire", "Lock", "join", "result", "Queue", "threading"),
     "Wait for threads in a thread: `await asyncio.to_thread(...)` or `asyncio.wrap_future(...)`."),
)  # fmt: skip
_ADVICE_ELSE = "Call it in a thread, `await asyncio.to_thread(...)`, or use an async library for it."

History = tuple[Window, ...]


def loop_blocked_io(window: Window, history: History) -> list[Finding]:
    """Fire when a loop stands inside of a call that waits."""
    return [found for loop in window.loops if (found := _blocked(loop, window)) is not None]


def _blocked(loop: LoopNumbers, window: Window) -> Finding | None:
    stalls = [stall for stall in stalls_of(window, loop.name, "blocked_call") if stall.took_s >= STALL_S]
    blocked, gil_s = loop.blocked or 0.0, window.gil_wait_mean_s or 0.0
    is_so = blocked >= BLOCKED_SHARE and gil_s < GIL_CALM_S
    if is_contended(window):
        stalls = []
    if not (is_so or stalls):
        return None
    # The longest iteration of all may have been somebody else's, who computed.
    longest_s = max((stall.took_s for stall in stalls), default=loop.longest_s)
    culprit = culprit_of(stalls) if stalls else _by_steps(window)
    held = f", up to {took(longest_s)} at a time" if longest_s >= STALL_S else ""
    return Finding(
        "loop_blocked_io",
        loop_subject(loop.name),
        "crit" if longest_s >= BLOCKED_CRIT_S and loop_hurt(loop, window) else "warn",
        f"Event loop {loop.name} stood inside a blocking call for {percent(blocked)} of the time{held}: "
        f"{culprit}.",
        bottleneck=IO_WAIT,
        evidence=(
            Evidence("time active but off the CPU", blocked, "1", BLOCKED_SHARE),
            Evidence("longest stall", longest_s, "s", STALL_S),
            Evidence("mean wait for the GIL", gil_s, "s", GIL_CALM_S),
            Evidence("delay p95", loop.delay_p95_s, "s"),
        ),
        culprit=culprit,
        stacks=stacks_of(stalls),
        traces=traces_of(stalls),
        advice=_advice_for(culprit.call, stalls),
        confidence="exact" if not stalls else f"sampled n={sum(stall.looks for stall in stalls)}",
        is_event=bool(stalls),
    )


def spin(window: Window, history: History) -> list[Finding]:
    """Fire when a loop turns without anything to do."""
    found = []
    for loop in window.loops:
        if (
            loop.active < SPIN_ACTIVE
            or loop.empty < SPIN_EMPTY
            or loop.iterations < SPIN_RATE
            or loop.events > SPIN_EVENTS * loop.iterations
        ):
            continue
        stalls = stalls_of(window, loop.name, "spin")
        culprit = culprit_of(stalls) if stalls else _by_steps(window, by_count=True)
        found.append(
            Finding(
                "spin",
                loop_subject(loop.name),
                "crit",
                f"Event loop {loop.name} turns {loop.iterations:,.0f} times a second with nothing to do: "
                f"{culprit} gives way and comes back at once.",
                bottleneck=GRANULARITY,
                evidence=(
                    Evidence("time active", loop.active, "1", SPIN_ACTIVE),
                    Evidence("iterations without an event", loop.empty, "1", SPIN_EMPTY),
                    Evidence("iterations a second", loop.iterations, "{iteration}/s", SPIN_RATE),
                    Evidence("events a second", loop.events, "{event}/s", SPIN_EVENTS * loop.iterations),
                ),
                culprit=culprit,
                traces=traces_of(stalls),
                advice="Wait for what it looks for: an asyncio.Event, a future, a queue; not "
                "`await asyncio.sleep(0)` in a loop.",
            )
        )
    return found


def loop_cpu_bound(window: Window, history: History) -> list[Finding]:
    """Fire when a loop computes for most of the time, or for long at a time."""
    return [found for loop in window.loops if (found := _computes(loop, window)) is not None]


def _computes(loop: LoopNumbers, window: Window) -> Finding | None:
    stalls = [stall for stall in stalls_of(window, loop.name, "cpu_python") if stall.took_s >= STALL_S]
    cpu = loop.cpu or 0.0
    if cpu < CPU_SHARE and not stalls:
        return None
    most = busiest(window)
    steps = sum(task.steps for task in window.tasks if task.sees_steps)
    busy_s = sum(task.busy_s for task in window.tasks if task.sees_steps)
    mean_step_s, rate = busy_s / steps if steps else 0.0, steps / window.seconds if window.seconds else 0.0
    longest_s = max([loop.longest_s, *(stall.took_s for stall in stalls)])
    share = most.busy_s / busy_s if most is not None and busy_s else 0.0
    culprit = culprit_of(stalls) if stalls else _by_steps(window)
    computed = f"Event loop {loop.name} computed {percent(cpu)} of the time"
    is_too_fine = not stalls and 0 < mean_step_s < FINE_STEP_S and rate > FINE_RATE
    if is_too_fine:
        sentence = (
            f"{computed} in {rate:,.0f} steps a second of {mean_step_s * 1e6:.0f} µs: tasks do too little "
            f"at a time, most of them {culprit}."
        )
        advice = "Do more in one step: handle items in batches, fewer tasks, fewer awaits."
    elif longest_s >= COARSE_S or (
        share >= MAJORITY and most is not None and most.busy_s >= COARSE_STEP_S * most.steps
    ):
        sentence = f"{computed}, up to {took(longest_s)} without a break: a step is too long, of {culprit}."
        advice = (
            "Split it with `await asyncio.sleep(0)` now and then, or compute in a process pool "
            "(`loop.run_in_executor(pool, ...)`)."
        )
    else:
        sentence = f"{computed}, in many places; most of it in {culprit}."
        advice = "Run more worker processes: one loop is one CPU."
    return Finding(
        "loop_cpu_bound",
        loop_subject(loop.name),
        "crit" if cpu >= CPU_CRIT and loop_hurt(loop, window) else "warn",
        sentence,
        bottleneck=GRANULARITY,
        evidence=(
            Evidence("time on a CPU", cpu, "1", CPU_SHARE),
            Evidence("longest iteration", longest_s, "s", COARSE_S),
            Evidence("busy time of the busiest function", share, "1", MAJORITY),
            Evidence("mean step", mean_step_s, "s", FINE_STEP_S),
            Evidence("steps a second", rate, "{step}/s", FINE_RATE),
        ),
        culprit=culprit,
        stacks=stacks_of(stalls),
        traces=traces_of(stalls),
        advice=advice,
        is_event=bool(stalls),
    )


def never_yielded(window: Window, history: History) -> list[Finding]:
    """Fire when a step runs for a second, whatever it does."""
    found = []
    for loop in window.loops:
        stalls = [
            stall
            for stall in window.stalls
            if stall.loop == loop.name and stall.cause != "spin" and stall.took_s >= NEVER_YIELDED_S
        ]
        longest_s = max([loop.holding_s, *(stall.took_s for stall in stalls)])
        if longest_s < NEVER_YIELDED_S:
            continue
        culprit = culprit_of(stalls)
        found.append(
            Finding(
                "never_yielded",
                loop_subject(loop.name),
                "crit" if loop_hurt(loop, window) else "warn",
                f"Event loop {loop.name} was not given back for {took(longest_s)}: {culprit}.",
                bottleneck=GRANULARITY,
                evidence=(Evidence("one step", longest_s, "s", NEVER_YIELDED_S),),
                culprit=culprit,
                stacks=stacks_of(stalls),
                traces=traces_of(stalls),
                advice="Let it await now and then, or run it in a thread or process.",
                is_event=True,
            )
        )
    return found


def _by_steps(window: Window, *, by_count: bool = False) -> Culprit:
    most: TaskNumbers | None = busiest(window)
    if by_count:
        seen = [task for task in window.tasks if task.steps]
        most = max(seen, key=lambda task: task.steps, default=None)
    return Culprit(function=most.function) if most is not None else Culprit()


def _advice_for(call: str, stalls: list[StallNumbers]) -> str:
    seen = [call, *(frame.partition(" ")[0] for stall in stalls[:1] for frame in stall.frames[:2])]
    for parts, advice in _ADVICE:
        if any(part in each for each in seen if each for part in parts):
            return advice
    return _ADVICE_ELSE
