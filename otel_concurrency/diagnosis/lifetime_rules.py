"""Rules 13 and 15 to 18: tasks and failures that nobody looks after, and forks that go wrong later."""

from __future__ import annotations

from itertools import pairwise

from otel_concurrency.diagnosis.evidence import MAX_TRACES, PROCESS, took
from otel_concurrency.diagnosis.finding import CONTENTION, Culprit, Evidence, Finding, StackCount, sampled
from otel_concurrency.diagnosis.window import StuckTask, Window

LEAK_WINDOWS = 30
"""Windows, five minutes of them as a rule, over which tasks must become more and more."""

LEAK_TASKS = 100
LEAK_STEPS = 2 / 3
"""Share of these windows in which there were more than in the one before; in none there were fewer."""

ORPHAN_S = 60.0
CANCEL_IGNORED_S = 5.0

UNRETRIEVED = ("task_never_retrieved", "future_never_retrieved", "executor_future")

History = tuple[Window, ...]


def task_leak(window: Window, history: History) -> list[Finding]:
    """Fire when there are more and more tasks of one function."""
    windows = [*history[-(LEAK_WINDOWS - 1) :], window]
    if len(windows) < LEAK_WINDOWS:
        return []
    found = []
    for task in window.tasks:
        live = [
            next((each.live for each in past.tasks if each.function == task.function), 0) for past in windows
        ]
        grown = sum(later > earlier for earlier, later in pairwise(live))
        shrunk = any(later < earlier for earlier, later in pairwise(live))
        left = task.created_ever - task.completed_ever
        if shrunk or grown < LEAK_STEPS * (len(live) - 1) or left <= LEAK_TASKS or live[-1] <= live[0]:
            continue
        span_s = (window.ended_unix_ns - windows[0].began_unix_ns) / 1e9
        found.append(
            Finding(
                "task_leak",
                task.function,
                "warn",
                f"Tasks of {task.function} are made and do not end: {live[0]} of them became {live[-1]} in "
                f"{took(span_s)}.",
                evidence=(
                    Evidence("made and not ended", left, "{task}", LEAK_TASKS),
                    Evidence("live at first", live[0], "{task}"),
                    Evidence("live now", live[-1], "{task}"),
                    Evidence("windows with more", grown, "{window}", LEAK_STEPS * (LEAK_WINDOWS - 1)),
                ),
                culprit=Culprit(function=task.function),
                advice="Await them, give them a timeout, or keep them in a TaskGroup.",
                is_event=True,
            )
        )
    return found


def deadlock(window: Window, history: History) -> list[Finding]:
    """Fire when tasks wait for each other in a circle, or for what nobody can bring about."""
    cycles: dict[tuple[str, ...], list[StuckTask]] = {}
    orphans: dict[str, list[StuckTask]] = {}
    for stuck in window.stuck:
        if stuck.kind == "cycle":
            cycles.setdefault(stuck.cycle, []).append(stuck)
        elif stuck.kind == "orphan" and stuck.for_s >= ORPHAN_S:
            orphans.setdefault(stuck.function, []).append(stuck)
    found = [
        Finding(
            "deadlock",
            " → ".join(cycle),
            "crit",
            f"{len(tasks)} tasks wait for each other and will for ever: {' → '.join((*cycle, cycle[0]))}.",
            bottleneck=CONTENTION,
            evidence=(
                Evidence("tasks in the cycle", len(tasks), "{task}", 1),
                Evidence("for", max(task.for_s for task in tasks), "s"),
            ),
            culprit=_culprit(tasks[0]),
            stacks=_stacks(tasks),
            traces=_traces(tasks),
            advice="Take locks in the same order everywhere, or hold only one at a time.",
            is_event=True,
        )
        for cycle, tasks in cycles.items()
        if cycle
    ]
    found += [
        Finding(
            "deadlock",
            f"orphan {function}",
            "info",
            f"{len(tasks)} tasks of {function} have waited for up to "
            f"{took(max(task.for_s for task in tasks))} for something that no timer, file, thread or task "
            "can bring about.",
            bottleneck=CONTENTION,
            evidence=(
                Evidence("waiting for", max(task.for_s for task in tasks), "s", ORPHAN_S),
                Evidence("tasks", len(tasks), "{task}"),
            ),
            culprit=_culprit(tasks[0]),
            stacks=_stacks(tasks),
            traces=_traces(tasks),
            advice="Look for a set_result() or a notify() that was forgotten; wait with a timeout.",
            confidence=sampled(len(tasks)),
            is_event=True,
        )
        for function, tasks in orphans.items()
    ]
    return found


def cancel_ignored(window: Window, history: History) -> list[Finding]:
    """Fire when a task that was cancelled goes on."""
    groups: dict[str, list[StuckTask]] = {}
    for stuck in window.stuck:
        if stuck.kind == "cancelled" and stuck.for_s >= _ignored_s(window):
            groups.setdefault(stuck.function, []).append(stuck)
    return [
        Finding(
            "cancel_ignored",
            function,
            "warn",
            f"{function} was cancelled and goes on, for {took(max(task.for_s for task in tasks))} by now: a "
            "graceful shutdown will wait for it.",
            evidence=(
                Evidence(
                    "since it was cancelled", max(task.for_s for task in tasks), "s", _ignored_s(window)
                ),
                Evidence("tasks", len(tasks), "{task}"),
            ),
            culprit=_culprit(tasks[0]),
            stacks=_stacks(tasks),
            traces=_traces(tasks),
            advice="Let CancelledError through: `raise` at the end of what catches it, no bare `except`.",
            is_event=True,
        )
        for function, tasks in groups.items()
    ]


def _ignored_s(window: Window) -> float:
    """Return from when on it counts; a shorter window is somebody's who wants to know sooner."""
    return min(CANCEL_IGNORED_S, max(1.0, 3 * window.seconds))


def errors_swallowed(window: Window, history: History) -> list[Finding]:
    """Fire when exceptions of tasks or work items were looked at by nobody."""
    seen = [failure for failure in window.failures if failure.kind in UNRETRIEVED and failure.count]
    if not seen:
        return []
    total = sum(failure.count for failure in seen)
    most = max(seen, key=lambda failure: failure.count)
    types = ", ".join(dict.fromkeys(failure.error_type for failure in seen if failure.error_type))
    return [
        Finding(
            "errors_swallowed",
            PROCESS,
            "warn",
            f"{total} failures were looked at by nobody: {types or 'exceptions'}"
            + (f" of {most.function}." if most.function else "."),
            evidence=(Evidence("failures that nobody looked at", total, "{failure}", 1),),
            culprit=Culprit(function=most.function, resource=most.error_type),
            advice="Await every task and look at every future: TaskGroup, gather, result(), a done callback.",
            is_event=True,
        )
    ]


def fork_with_threads(window: Window, history: History) -> list[Finding]:
    """Fire when a process forks that has other threads, whose locks the child inherits as they were."""
    if not window.forks or window.fork_threads < 1:
        return []
    names = ", ".join(window.fork_thread_names[:3])
    return [
        Finding(
            "fork_with_threads",
            PROCESS,
            "warn",
            f"This process forked while {window.fork_threads} other threads ran"
            f"{f' ({names})' if names else ''}: a lock that one of them held stays locked in the child.",
            evidence=(
                Evidence("other threads at a fork", window.fork_threads, "{thread}", 1),
                Evidence("forks", window.forks, "{fork}"),
            ),
            culprit=Culprit(
                function=window.fork_function,
                thread=window.fork_thread_names[0] if window.fork_thread_names else "",
            ),
            advice="Fork before threads start, or use the start method `spawn` or `forkserver`.",
            is_event=True,
        )
    ]


def _culprit(task: StuckTask) -> Culprit:
    return Culprit(function=task.function, call=task.waits_for, task=task.name)


def _stacks(tasks: list[StuckTask]) -> tuple[StackCount, ...]:
    return tuple(StackCount(task.frames) for task in tasks[:3] if task.frames)


def _traces(tasks: list[StuckTask]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(task.trace for task in tasks if task.trace))[:MAX_TRACES]
