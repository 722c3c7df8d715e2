"""Rules 11 and 12: how work is cut, and what it waits for outside."""

from __future__ import annotations

from otel_concurrency.diagnosis.evidence import PROCESS, percent, took
from otel_concurrency.diagnosis.finding import GRANULARITY, IO_WAIT, Culprit, Evidence, Finding, sampled
from otel_concurrency.diagnosis.window import ExecutorNumbers, Window

IMBALANCE = 3.0
STRAGGLER = 5.0
LEAST_RUNS = 4
STRAGGLER_S = 0.1
LONELY = 2
"""Looks in which only the straggler was at work: else nobody waited for it."""

TRANSFER_FACTOR = 5.0
LEAST_SENT = 50

IDLE_LOOP = 0.3
BASELINE_FACTOR = 2.0
PEER_SHARE = 0.6
LEAST_REQUESTS = 20
LEAST_SLOWDOWN_S = 0.02
OUTSIDE = ("stream_io", "http_pool", "db_pool")

History = tuple[Window, ...]


def granularity_imbalance(window: Window, history: History) -> list[Finding]:
    """Fire when one worker has all the work, one item takes many times the others, or items are too small."""
    found = []
    for executor in window.executors:
        for check in (_imbalanced, _straggling, _too_small):
            one = check(executor)
            if one is not None:
                found.append(one)
                break
    return found


def _imbalanced(executor: ExecutorNumbers) -> Finding | None:
    busy = executor.worker_busy_s
    mean = sum(busy) / len(busy) if busy else 0.0
    if len(busy) < 2 or not mean or max(busy) / mean < IMBALANCE:
        return None
    return _finding(
        executor,
        "warn",
        f"One worker of {executor.name} was busy for {took(max(busy))}, all of them for {took(mean)} on "
        "average: work is not spread.",
        (Evidence("busiest worker to the mean", max(busy) / mean, "1", IMBALANCE),),
        "",
        "Cut the work into smaller pieces: a smaller chunksize.",
    )


def _straggling(executor: ExecutorNumbers) -> Finding | None:
    if executor.lonely < LONELY:
        return None
    for run in executor.runs:
        if (
            run.count_ever >= LEAST_RUNS
            and run.longest_s >= STRAGGLER_S
            and run.longest_s >= STRAGGLER * run.median_s > 0
        ):
            return _finding(
                executor,
                "warn",
                f"One work item of {run.function} took {took(run.longest_s)}, others {took(run.median_s)}: "
                f"the rest of {executor.name} had nothing to do meanwhile.",
                (
                    Evidence("longest to median", run.longest_s / run.median_s, "1", STRAGGLER),
                    Evidence("looks with one worker at work", executor.lonely, "{look}", LONELY),
                    Evidence("longest", run.longest_s, "s", STRAGGLER_S),
                    Evidence("median", run.median_s, "s"),
                ),
                run.function,
                "Split the large item, or begin with it; with map(), a smaller chunksize.",
                is_event=True,
            )
    return None


def _too_small(executor: ExecutorNumbers) -> Finding | None:
    if executor.completed < LEAST_SENT or not executor.transfer_s:
        return None
    ratio = executor.run_s / executor.transfer_s
    if ratio >= TRANSFER_FACTOR:
        return None
    most = max(executor.runs, key=lambda run: run.count, default=None)
    return _finding(
        executor,
        "info",
        f"Work items of {executor.name} ran for {took(executor.run_s)}, and took {took(executor.transfer_s)} "
        "to be sent there and back: they are too small.",
        (
            Evidence("running to sending", ratio, "1", TRANSFER_FACTOR),
            Evidence("work items", executor.completed, "{work_item}", LEAST_SENT),
        ),
        most.function if most is not None else "",
        "Send more at a time: map(..., chunksize=100), or arguments that are smaller.",
    )


def _finding(
    executor: ExecutorNumbers,
    severity: str,
    sentence: str,
    evidence: tuple[Evidence, ...],
    function: str,
    advice: str,
    *,
    is_event: bool = False,
) -> Finding:
    return Finding(
        "granularity_imbalance",
        executor.name,
        "info" if severity == "info" else "warn",
        sentence,
        bottleneck=GRANULARITY,
        evidence=evidence,
        culprit=Culprit(function=function, resource=executor.name),
        advice=advice,
        is_event=is_event,
    )


def io_wait(window: Window, history: History) -> list[Finding]:
    """Fire when requests take longer than they used to, and wait for one peer while the loop is idle."""
    requests = window.requests
    baseline_s = requests.baseline_p95_s
    if (
        baseline_s is None
        or requests.count < LEAST_REQUESTS
        or requests.p95_s < BASELINE_FACTOR * baseline_s
        or requests.p95_s - baseline_s < LEAST_SLOWDOWN_S
        or not window.loops
        or max(loop.active for loop in window.loops) >= IDLE_LOOP
    ):
        return []
    total = sum(wait.wait_s for wait in window.waits)
    outside = [wait for wait in window.waits if wait.kind in OUTSIDE]
    most = max(outside, key=lambda wait: wait.wait_s, default=None)
    share = most.wait_s / total if most is not None and total else 0.0
    if most is None or share < PEER_SHARE:
        return []
    peer = most.peer or most.kind
    return [
        Finding(
            "io_wait",
            PROCESS,
            "info",
            f"Requests take {took(requests.p95_s)} (p95), {requests.p95_s / baseline_s:.1f} times what they "
            f"used to: {percent(share)} of what tasks wait for is {peer}. It is downstream.",
            bottleneck=IO_WAIT,
            evidence=(
                Evidence("request p95 to its baseline", requests.p95_s / baseline_s, "1", BASELINE_FACTOR),
                Evidence("share of waiting for one peer", share, "1", PEER_SHARE),
                Evidence("time active", max(loop.active for loop in window.loops), "1", IDLE_LOOP),
            ),
            culprit=Culprit(resource=peer),
            advice="Look at the other side; here a timeout, a limit on what is in flight, or a cache helps.",
            confidence=sampled(sum(wait.tasks for wait in window.waits)),
        )
    ]
