"""Rules 1 to 4: what the machine and the interpreter keep from the program."""

from __future__ import annotations

from otel_concurrency.diagnosis.evidence import (
    EVENT_STALLS,
    PROCESS,
    computing,
    culprit_of,
    hurt,
    is_contended,
    ms,
    percent,
    recent_stalls,
    says_enough,
    stacks_of,
    took,
    traces_of,
    worst_delay_s,
)
from otel_concurrency.diagnosis.finding import GIL, Culprit, Evidence, Finding, Severity, StackCount
from otel_concurrency.diagnosis.window import ThreadNumbers, Window

RUNQUEUE_SHARE = 0.15
THROTTLED_SHARE = 0.05
STARVED_DELAY_S = 0.25
"""From this delay on, starvation is critical."""

GIL_HELD_S = 0.1
GIL_MEAN_S = 0.002
GIL_MEAN_CRIT_S = 0.010
GIL_CPU = (0.8, 1.3)
"""CPUs that a process takes whose threads take turns."""

CALM_RUNQUEUE = 0.05
"""Below this, a wait for the GIL was no wait for a CPU."""

GC_SHARE = 0.05
GC_PAUSE_S = 0.05

History = tuple[Window, ...]


def cpu_starvation(window: Window, history: History) -> list[Finding]:
    """Fire when loops are ready to run and have no CPU, or the quota is used up."""
    runqueue = max((loop.runqueue or 0.0 for loop in window.loops), default=0.0)
    throttled = window.throttled or 0.0
    stalls = recent_stalls(window, history, "cpu_starved")
    is_throttled, is_queued = throttled >= THROTTLED_SHARE, runqueue >= RUNQUEUE_SHARE
    if not (is_throttled or is_queued or says_enough(stalls)):
        return []
    delay_s = worst_delay_s(window)
    why = (
        f"its CPU quota was used up {percent(throttled)} of the time"
        if is_throttled
        else f"an event loop was ready to run and had no CPU {percent(runqueue)} of the time"
        if is_queued
        else f"an event loop stalled {len(stalls)} times because it had no CPU"
    )
    return [
        Finding(
            "cpu_starvation",
            PROCESS,
            "crit" if delay_s > STARVED_DELAY_S else "warn",
            f"This process does not get the CPU that it needs: {why}. It is not your code.",
            evidence=(
                Evidence("time in the run queue", runqueue, "1", RUNQUEUE_SHARE),
                Evidence("time throttled", throttled, "1", THROTTLED_SHARE),
                Evidence("delay p95", delay_s, "s", STARVED_DELAY_S),
                Evidence("stalls without a CPU", len(stalls), "{stall}", EVENT_STALLS),
            ),
            culprit=Culprit(resource="CPU quota" if is_throttled else "other processes"),
            traces=traces_of(stalls),
            advice="Raise the CPU limit of the container."
            if is_throttled
            else "Look for what else runs on this machine, or run fewer workers on it.",
            is_event=says_enough(stalls),
        )
    ]


def gil_held_by_native(window: Window, history: History) -> list[Finding]:
    """Fire when C code kept the GIL so long that nobody else could go on."""
    stalls = recent_stalls(window, (), "native_gil_held")
    longest_s = max([window.gil_wait_max_s or 0.0, *(stall.took_s for stall in stalls)])
    is_seen = bool(stalls) and not is_contended(window)
    if not window.has_gil or longest_s < GIL_HELD_S or not (is_seen or _one_thread_kept_it(window)):
        return []
    culprit, frames = culprit_of(stalls), stacks_of(stalls)
    if not stalls:
        culprit, frames = _of_thread(computing(window)[0])
    return [
        Finding(
            "gil_held_by_native",
            PROCESS,
            "crit",
            f"{culprit} kept the GIL for {took(longest_s)}: no other Python thread could go on.",
            bottleneck=GIL,
            evidence=(
                Evidence("longest wait for the GIL", window.gil_wait_max_s or 0.0, "s", GIL_HELD_S),
                Evidence("stalls because of it", len(stalls), "{stall}", 1),
                Evidence("longest stall", max((stall.took_s for stall in stalls), default=0.0), "s"),
            ),
            culprit=culprit,
            stacks=frames,
            traces=traces_of(stalls),
            advice="Give that C code smaller pieces, use a library that lets go of the GIL, or run it in a "
            "process pool. A thread does not help.",
            is_event=True,
        )
    ]


def gil_contention(window: Window, history: History) -> list[Finding]:
    """Fire when threads that compute in Python take turns, and the loop has to wait for its own."""
    mean_s = window.gil_wait_mean_s or 0.0
    busy = computing(window)
    stalls = recent_stalls(window, history, "gil_contention")
    cpu = window.cpu or 0.0
    is_so = mean_s >= GIL_MEAN_S and GIL_CPU[0] <= cpu <= GIL_CPU[1] and len(busy) >= 2
    if not window.has_gil or not (is_so or says_enough(stalls)):
        return []
    others = [thread for thread in busy if not thread.runs_loop] or busy
    named = ", ".join(f"{thread.name} ({percent(thread.cpu)})" for thread in others[:3])
    severity: Severity = "crit" if mean_s >= GIL_MEAN_CRIT_S and hurt(window) else "warn"
    culprit, stacks = _of_thread(others[0]) if others else (culprit_of(stalls), ())
    return [
        Finding(
            "gil_contention",
            PROCESS,
            severity,
            f"Threads compete for the GIL: each waits {ms(mean_s)} for it on average. "
            f"Busy are {named or 'threads that nobody saw'}.",
            bottleneck=GIL,
            evidence=(
                Evidence("mean wait for the GIL", mean_s, "s", GIL_MEAN_S),
                Evidence("CPUs taken by the process", cpu, "{cpu}", GIL_CPU[0]),
                Evidence("threads that compute", len(busy), "{thread}", 2),
                Evidence("stalls because of it", len(stalls), "{stall}", EVENT_STALLS),
            ),
            culprit=culprit,
            stacks=stacks,
            traces=traces_of(stalls),
            advice="Move the computing into a process pool, or into code that lets go of the GIL.",
            confidence=f"sampled n={window.gil_probes}",
            is_event=says_enough(stalls),
        )
    ]


def gc_pauses(window: Window, history: History) -> list[Finding]:
    """Fire when the garbage collector takes much, or long at a time."""
    stalls = recent_stalls(window, (), "gc_pause")
    if window.gc_share < GC_SHARE and window.gc_longest_s < GC_PAUSE_S:
        return []
    return [
        Finding(
            "gc_pauses",
            PROCESS,
            "warn",
            f"The garbage collector stopped the program for up to {ms(window.gc_longest_s)}, and took "
            f"{percent(window.gc_share)} of the time in {window.gc_pauses} pauses.",
            evidence=(
                Evidence("share of time in the garbage collector", window.gc_share, "1", GC_SHARE),
                Evidence("longest pause", window.gc_longest_s, "s", GC_PAUSE_S),
                Evidence("pauses", window.gc_pauses, "{pause}"),
            ),
            culprit=culprit_of(stalls) if stalls else Culprit(resource="garbage collector"),
            stacks=stacks_of(stalls),
            traces=traces_of(stalls),
            advice="gc.freeze() after start-up, higher gc.set_threshold(), fewer objects that live long.",
            is_event=window.gc_longest_s >= GC_PAUSE_S,
        )
    ]


def _one_thread_kept_it(window: Window) -> bool:
    """Whether nobody else computed, and nobody lacked a CPU: then one thread must have had it."""
    busy = computing(window)
    # A loop that turns lets go of the GIL each time, though others may be too late to take it.
    turns = any(thread.runs_loop for thread in busy)
    return (
        len(busy) == 1
        and (not turns or any(loop.longest_s >= GIL_HELD_S for loop in window.loops))
        and all((loop.runqueue or 0.0) < CALM_RUNQUEUE for loop in window.loops)
        and not any(stall.cause != "native_gil_held" for stall in window.stalls)
        and window.gc_longest_s < GC_PAUSE_S
    )


def _of_thread(thread: ThreadNumbers) -> tuple[Culprit, tuple[StackCount, ...]]:
    stacks = (StackCount(thread.stack),) if thread.stack else ()
    return Culprit(function=thread.function, thread=thread.name), stacks
