"""What rules share: how stalls name a culprit, what counts as harm, and how numbers are said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from otel_concurrency.diagnosis.finding import Culprit, StackCount
from otel_concurrency.diagnosis.window import LoopNumbers, StallNumbers, TaskNumbers, ThreadNumbers, Window

PROCESS = "process"
"""Subject of what concerns all of a process."""

STEADY = 3
"""Windows in a row in which something is so, before it is said; looks, within one."""

EVENT_STALLS = 3
"""Stalls of one cause within `STEADY` windows that say as much."""

EVENT_STALL_S = 1.0
"""And so does as much time in them."""

GIL_CALM_S = 0.001
"""A mean wait for the GIL below which nobody competes for it."""

BUSY_THREAD = 0.02
"""Share of a CPU from which on a thread counts as one that computes."""

CONTENDING_CPU = 0.5

HURTS_DELAY_S = 0.01
HURTS_READY = 10
"""A delay, and a queue of callbacks, from which on somebody was held up."""

MAX_STACKS = 3
MAX_TRACES = 5

MAJORITY = 0.5


def loop_subject(loop: str) -> str:
    """Name a loop as the subject of a finding."""
    return f"loop {loop}"


def stalls_of(window: Window, loop: str, *causes: str) -> list[StallNumbers]:
    """Return the stalls of one loop that have one of these causes."""
    return [stall for stall in window.stalls if stall.loop == loop and stall.cause in causes]


def recent_stalls(window: Window, history: Sequence[Window], cause: str) -> list[StallNumbers]:
    """Return the stalls of a cause in this window and those right before it."""
    last = [*history[-(STEADY - 1) :], window] if STEADY > 1 else [window]
    return [
        stall
        for each in last
        for stall in each.stalls
        if stall.cause == cause and (each is window or not stall.is_on)
    ]


def computing(window: Window) -> list[ThreadNumbers]:
    """Return the threads that compute, the busiest first."""
    busy = [thread for thread in window.threads if thread.cpu >= BUSY_THREAD]
    return sorted(busy, key=lambda thread: -thread.cpu)


def is_contended(window: Window) -> bool:
    """Whether other threads took so much of the GIL that one stall's cause is not to be trusted."""
    busy = computing(window)
    others = sum(thread.cpu for thread in busy if not thread.runs_loop)
    mean_s = window.gil_wait_mean_s
    return (
        window.has_gil
        and len(busy) >= 2
        and others >= CONTENDING_CPU
        and (mean_s is None or mean_s >= GIL_CALM_S)
    )


def says_enough(stalls: Sequence[StallNumbers]) -> bool:
    """Whether these stalls, of one cause, say what otherwise three windows in a row do."""
    return len(stalls) >= EVENT_STALLS or sum(stall.took_s for stall in stalls) >= EVENT_STALL_S


def culprit_of(stalls: Iterable[StallNumbers]) -> Culprit:
    """Return who held loops for longest, all stalls of one place together."""
    totals: Counter[Culprit] = Counter()
    for stall in stalls:
        who = Culprit(stall.function, stall.call, stall.file, stall.line)
        totals[who] += int(stall.took_s * 1e6) + 1
    return totals.most_common(1)[0][0] if totals else Culprit()


def stacks_of(stalls: Iterable[StallNumbers]) -> tuple[StackCount, ...]:
    """Return the stacks that were seen most often."""
    looks: Counter[tuple[str, ...]] = Counter()
    for stall in stalls:
        if stall.frames:
            looks[stall.frames] += max(1, stall.looks)
    return tuple(StackCount(frames, count) for frames, count in looks.most_common(MAX_STACKS))


def traces_of(stalls: Iterable[StallNumbers]) -> tuple[str, ...]:
    """Return the traces in which they were, the first ones."""
    return tuple(dict.fromkeys(stall.trace for stall in stalls if stall.trace))[:MAX_TRACES]


def busiest(window: Window) -> TaskNumbers | None:
    """Return the coroutine function whose tasks ran for longest; None where nobody counts that."""
    return max(
        (task for task in window.tasks if task.sees_steps and task.busy_s > 0),
        key=lambda task: task.busy_s,
        default=None,
    )


def loop_hurt(loop: LoopNumbers, window: Window) -> bool:
    """Whether somebody was held up by a loop: that asks another question than how long it took."""
    return (
        loop.delay_p95_s >= HURTS_DELAY_S
        or (loop.ready or 0) >= HURTS_READY
        or any(stall.trace for stall in window.stalls if stall.loop == loop.name)
    )


def hurt(window: Window) -> bool:
    """The same of any loop."""
    return any(loop_hurt(loop, window) for loop in window.loops)


def worst_delay_s(window: Window) -> float:
    """Return the longest delay p95 of any loop."""
    return max((loop.delay_p95_s for loop in window.loops), default=0.0)


def percent(share: float) -> str:
    """Say a share."""
    return f"{share * 100:.0f} %"


def ms(seconds: float) -> str:
    """Say a short time."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def took(seconds: float) -> str:
    """Say a time."""
    return ms(seconds) if seconds < 1 else f"{seconds:.1f} s"
