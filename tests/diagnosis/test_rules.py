"""The rules, one window each: the table of evidence that they were made from, and their thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from otel_concurrency.diagnosis import lifetime_rules
from otel_concurrency.diagnosis.finding import CLASSES
from otel_concurrency.diagnosis.rules import ORDER, RULES, in_order, judge
from otel_concurrency.diagnosis.window import (
    ExecutorNumbers,
    FailureNumbers,
    HolderNumbers,
    LockNumbers,
    LoopNumbers,
    PoolNumbers,
    RequestNumbers,
    RunNumbers,
    StallNumbers,
    StuckTask,
    TaskNumbers,
    ThreadNumbers,
    WaitNumbers,
    Window,
)

S = 1_000_000_000


def window(loop: dict[str, Any] | None = None, **numbers: Any) -> Window:
    """A window of 10 s with one loop, calm but for what is given."""
    loops = (LoopNumbers("0", "selector", **{"active": 0.01, "cpu": 0.02, "blocked": 0.0, **(loop or {})}),)
    return Window(**{"began_unix_ns": S, "ended_unix_ns": 11 * S, "loops": loops, **numbers})


def told(window: Window, *history: Window) -> list[tuple[str, str]]:
    return [(found.rule, found.severity) for found in judge(window, history)]


MAIN = ThreadNumbers("MainThread", 0.16, runs_loop=True)
SPINNERS = (ThreadNumbers("crunch-1", 0.43, function="app.crunch"), ThreadNumbers("crunch-2", 0.42))

MEASURED = {
    # U, C, B, G, D, I, Z of a run of 1.2 s each, and what else was seen
    "idle": (
        window({"active": 0.01, "cpu": 0.02, "delay_p95_s": 0.0001, "iterations": 415}, gil_wait_mean_s=1e-4),
        [],
    ),
    "healthy work": (
        window({"active": 0.23, "cpu": 0.23, "delay_p95_s": 1e-4, "iterations": 247}, gil_wait_mean_s=1.5e-4),
        [],
    ),
    "lock convoy": (
        window(
            {"active": 0.01, "cpu": 0.02, "delay_p95_s": 2e-4, "iterations": 536},
            gil_wait_mean_s=1.2e-4,
            locks=(LockNumbers("lock", "app:7", 500, 490.0, 49, 10, 10),),
        ),
        [("lock_contention", "warn")],
    ),
    "time.sleep in a coroutine": (
        window(
            {"active": 0.74, "cpu": 0.01, "blocked": 0.74, "delay_p95_s": 0.026, "iterations": 121},
            gil_wait_mean_s=1.1e-4,
        ),
        [("loop_blocked_io", "warn")],
    ),
    "CPU in a coroutine": (
        window(
            {"active": 0.74, "cpu": 0.73, "blocked": 0.01, "delay_p95_s": 0.020, "iterations": 104},
            gil_wait_mean_s=3.2e-3,
            cpu=0.75,
            threads=(replace(MAIN, cpu=0.73),),
        ),
        [("loop_cpu_bound", "warn")],
    ),
    "sleep(0) spin": (
        window(
            {
                "active": 1.0,
                "cpu": 0.98,
                "blocked": 0.01,
                "delay_p95_s": 1e-4,
                "iterations": 311_000,
                "empty": 1.0,
            },
            gil_wait_mean_s=6.5e-4,
            cpu=1.0,
            threads=(replace(MAIN, cpu=0.98),),
        ),
        [("spin", "crit")],
    ),
    "2 GIL-bound threads": (
        window(
            {"active": 0.26, "cpu": 0.16, "blocked": 0.04, "delay_p95_s": 0.024, "iterations": 117},
            gil_wait_mean_s=7.6e-3,
            gil_wait_max_s=0.037,
            cpu=1.03,
            threads=(MAIN, *SPINNERS),
        ),
        [("gil_contention", "warn")],
    ),
    "2 GIL-bound threads, uvloop": (
        window(
            {"active": 0.54, "cpu": 0.16, "blocked": 0.22, "delay_p95_s": 0.024},
            gil_wait_mean_s=7.6e-3,
            cpu=1.03,
            threads=(MAIN, *SPINNERS),
        ),
        [("gil_contention", "warn")],
    ),
    "a thread that lets go of the GIL": (
        window(
            {"active": 0.23, "cpu": 0.23, "delay_p95_s": 1e-4, "iterations": 251},
            gil_wait_mean_s=1.2e-4,
            cpu=1.24,
            threads=(MAIN, ThreadNumbers("hash", 1.0)),
        ),
        [],
    ),
    "4 foreign CPU hogs": (
        window(
            {"active": 0.30, "cpu": 0.17, "runqueue": 0.27, "delay_p95_s": 6.7e-3, "iterations": 197},
            gil_wait_mean_s=8e-4,
            gil_wait_max_s=0.0038,
        ),
        [("cpu_starvation", "warn")],
    ),
}


@pytest.mark.parametrize(("seen", "verdict"), MEASURED.values(), ids=MEASURED)
def test_what_was_measured_gets_its_verdict_and_no_other(
    seen: Window, verdict: list[tuple[str, str]]
) -> None:
    assert told(seen) == verdict


def stall(cause: str, took_s: float = 0.3, **more: Any) -> StallNumbers:
    return StallNumbers("0", cause, took_s, function="app.handle", trace="ab" * 16, looks=8, **more)


SLOW = {"delay_p95_s": 0.3}
POOL = PoolNumbers("db:5432/shop", used=5, limit=5, samples=10, connect_p95_s=0.001)
EXECUTOR = ExecutorNumbers("io", active=4, limit=4, queued=3, samples=10)
BUSY = TaskNumbers("app.handle", busy_s=7.0, steps=700)
TINY = TaskNumbers("app.item", busy_s=7.0, steps=700_000)
RUN = RunNumbers("app.part", 8, 0.1, 100, 0.5)
LOCK = LockNumbers("lock", "app:7", samples=10)
REQUESTS = RequestNumbers(100, 0.2, 0.1)
AWAY = (WaitNumbers("http_pool", "api.example:443", 6, 6.0), WaitNumbers("sleep", "", 4, 4.0))
LONER = replace(EXECUTOR, active=1, queued=0, lonely=2, completed=8)
SENT = ExecutorNumbers("cpu", "process", completed=50, run_s=4.99, transfer_s=1.0, runs=(RUN,))

FIRES = {
    "run queue": (window({"runqueue": 0.15}), "cpu_starvation", "warn"),
    "run queue, and it hurt": (window({"runqueue": 0.15, "delay_p95_s": 0.251}), "cpu_starvation", "crit"),
    "throttled": (window(throttled=0.05), "cpu_starvation", "warn"),
    "starved stalls": (window(stalls=(stall("cpu_starved"),) * 3), "cpu_starvation", "warn"),
    "native": (window(stalls=(stall("native_gil_held"),), gil_wait_max_s=0.1), "gil_held_by_native", "crit"),
    "native, in a thread": (
        window(gil_wait_max_s=0.1, threads=(ThreadNumbers("regex", 0.5),)),
        "gil_held_by_native",
        "crit",
    ),
    "gil": (window(gil_wait_mean_s=0.002, cpu=0.8, threads=SPINNERS), "gil_contention", "warn"),
    "gil, upper end": (window(gil_wait_mean_s=0.002, cpu=1.3, threads=SPINNERS), "gil_contention", "warn"),
    "gil, and it hurt": (
        window({"delay_p95_s": 0.01}, gil_wait_mean_s=0.010, cpu=1.0, threads=SPINNERS),
        "gil_contention",
        "crit",
    ),
    "gil, long waits that hurt nobody": (
        window(gil_wait_mean_s=0.010, cpu=1.0, threads=SPINNERS),
        "gil_contention",
        "warn",
    ),
    "gil stalls": (window(stalls=(stall("gil_contention"),) * 3), "gil_contention", "warn"),
    "gc share": (window(gc_share=0.05), "gc_pauses", "warn"),
    "gc pause": (window(gc_longest_s=0.05), "gc_pauses", "warn"),
    "blocked": (window({"blocked": 0.10}), "loop_blocked_io", "warn"),
    "blocking stall": (window(stalls=(stall("blocked_call", 0.1),)), "loop_blocked_io", "warn"),
    "long blocking stall": (window(SLOW, stalls=(stall("blocked_call", 0.25),)), "loop_blocked_io", "crit"),
    "spin": (
        window({"active": 0.95, "empty": 0.95, "iterations": 10_000.0, "events": 100.0}),
        "spin",
        "crit",
    ),
    "cpu": (window({"cpu": 0.70}, tasks=(BUSY,)), "loop_cpu_bound", "warn"),
    "cpu, and it hurt": (window({"cpu": 0.90, **SLOW}), "loop_cpu_bound", "crit"),
    "cpu, and it hurt nobody": (window({"cpu": 0.90}), "loop_cpu_bound", "warn"),
    "computing stall": (window(stalls=(stall("cpu_python", 0.1),)), "loop_cpu_bound", "warn"),
    "pool full": (window(pools=(replace(POOL, full=3),)), "pool_exhausted", "warn"),
    "pool waits": (window(pools=(replace(POOL, waits=1, wait_p95_s=0.1),)), "pool_exhausted", "warn"),
    "pool timeout": (window(pools=(replace(POOL, timeouts=1),)), "pool_exhausted", "crit"),
    "workers busy": (window(executors=(replace(EXECUTOR, full=3),)), "executor_saturated", "warn"),
    "long line": (
        window(executors=(replace(EXECUTOR, completed=5, queue_p95_s=0.1, run_p50_s=0.1),)),
        "executor_saturated",
        "warn",
    ),
    "nested submits": (
        window(executors=(replace(EXECUTOR, full=3, waiting_workers=4),)),
        "executor_saturated",
        "crit",
    ),
    "one always waits": (window(locks=(replace(LOCK, wait_s=10.0),)), "lock_contention", "warn"),
    "a crowd": (window(locks=(replace(LOCK, crowded=3),)), "lock_contention", "warn"),
    "unequal workers": (
        window(executors=(ExecutorNumbers("w", worker_busy_s=(9.0, 1.0, 1.0, 1.0)),)),
        "granularity_imbalance",
        "warn",
    ),
    "straggler": (window(executors=(replace(LONER, runs=(RUN,)),)), "granularity_imbalance", "warn"),
    "items too small": (window(executors=(SENT,)), "granularity_imbalance", "info"),
    "downstream": (window(requests=REQUESTS, waits=AWAY), "io_wait", "info"),
    "a stall that nobody can explain": (window(stalls=(stall("unknown", 1.0),)), "never_yielded", "crit"),
    "a step that goes on": (window({"holding_s": 1.0}), "never_yielded", "warn"),
    "cycle": (window(stuck=(StuckTask("cycle", "A", cycle=("A", "B")),)), "deadlock", "crit"),
    "orphan": (window(stuck=(StuckTask("orphan", "A", for_s=60.0),)), "deadlock", "info"),
    "cancelled": (window(stuck=(StuckTask("cancelled", "A", for_s=5.0),)), "cancel_ignored", "warn"),
    "swallowed": (
        window(failures=(FailureNumbers("task_never_retrieved", "ValueError", 1),)),
        "errors_swallowed",
        "warn",
    ),
    "fork": (window(forks=1, fork_threads=1), "fork_with_threads", "warn"),
}


@pytest.mark.parametrize(("seen", "rule", "severity"), FIRES.values(), ids=FIRES)
def test_at_its_threshold_a_rule_fires_alone(seen: Window, rule: str, severity: str) -> None:
    assert told(seen) == [(rule, severity)]


CALM = {
    "run queue": window({"runqueue": 0.149}),
    "throttled": window(throttled=0.049),
    "starved stalls": window(stalls=(stall("cpu_starved"),) * 2),
    "native": window(stalls=(stall("native_gil_held", 0.099),), gil_wait_max_s=0.099),
    "native, of whom nobody knows": window(gil_wait_max_s=0.1, threads=SPINNERS),
    "native, and no CPU": window({"runqueue": 0.05}, gil_wait_max_s=0.1, threads=SPINNERS[:1]),
    "native, but the loop turns": window(
        {"longest_s": 0.002}, gil_wait_max_s=2.0, threads=(replace(MAIN, cpu=0.6),)
    ),
    "native, without a GIL": window(gil_wait_max_s=0.1, has_gil=False, threads=SPINNERS[:1]),
    "gil": window(gil_wait_mean_s=0.0019, cpu=1.0, threads=SPINNERS),
    "gil, one thread": window(gil_wait_mean_s=0.1, cpu=1.0, threads=SPINNERS[:1]),
    "gil, little CPU": window(gil_wait_mean_s=0.1, cpu=0.79, threads=SPINNERS),
    "gil, several CPUs": window(gil_wait_mean_s=0.1, cpu=1.31, threads=SPINNERS),
    "gil, without one": window(gil_wait_mean_s=0.1, cpu=1.0, threads=SPINNERS, has_gil=False),
    "gc": window(gc_share=0.049, gc_longest_s=0.049),
    "blocked": window({"blocked": 0.099}),
    "blocked, and everybody waits for the GIL": window({"blocked": 0.10}, gil_wait_mean_s=0.001),
    "blocking stall": window(stalls=(stall("blocked_call", 0.099),)),
    "spin, active": window({"active": 0.949, "empty": 1.0, "iterations": 1e5}),
    "spin, not empty": window({"active": 1.0, "empty": 0.949, "iterations": 1e5}),
    "spin, slow": window({"active": 1.0, "empty": 1.0, "iterations": 9_999.0}),
    "spin, events": window({"active": 1.0, "empty": 1.0, "iterations": 1e5, "events": 1_001.0}),
    "cpu": window({"cpu": 0.699}),
    "pool full": window(pools=(replace(POOL, full=2),)),
    "pool waits": window(pools=(replace(POOL, waits=9, wait_p95_s=0.099),)),
    "a wait that was connecting": window(pools=(replace(POOL, waits=9, wait_p95_s=0.3, connect_p95_s=0.15),)),
    "all taken, and nobody waits": window(pools=(replace(POOL, used=5),)),
    "workers busy": window(executors=(replace(EXECUTOR, full=2),)),
    "short line": window(executors=(replace(EXECUTOR, completed=99, queue_p95_s=0.099),)),
    "long line for long work": window(
        executors=(replace(EXECUTOR, completed=99, queue_p95_s=0.5, run_p50_s=0.51),)
    ),
    "few items": window(executors=(replace(EXECUTOR, completed=4, queue_p95_s=9.0),)),
    "locks": window(locks=(replace(LOCK, wait_s=9.9, crowded=2),)),
    "many locks": window(locks=tuple(replace(LOCK, name=str(n), wait_s=10.0) for n in range(3))),
    "consumers": window(locks=(LockNumbers("queue_get", "app:9", 9, 90.0, 9, 10, 10),)),
    "unequal workers": window(executors=(ExecutorNumbers("w", worker_busy_s=(8.9, 1.0, 1.0, 1.0)),)),
    "one worker": window(executors=(ExecutorNumbers("w", worker_busy_s=(9.0,)),)),
    "straggler": window(executors=(replace(LONER, runs=(replace(RUN, longest_s=0.499),)),)),
    "straggler among others": window(executors=(replace(LONER, lonely=1, runs=(RUN,)),)),
    "items": window(executors=(replace(SENT, run_s=5.0),)),
    "few small items": window(executors=(replace(SENT, completed=49),)),
    "as slow as ever": window(requests=replace(REQUESTS, p95_s=0.199), waits=AWAY),
    "slow, no baseline yet": window(requests=replace(REQUESTS, baseline_p95_s=None), waits=AWAY),
    "slow, and busy": window({"active": 0.3}, requests=REQUESTS, waits=AWAY),
    "slow, who knows why": window(requests=REQUESTS, waits=(*AWAY, WaitNumbers("lock", "", 1, 0.1))),
    "a step": window({"holding_s": 0.99}, stalls=(stall("unknown", 0.99),)),
    "orphan": window(stuck=(StuckTask("orphan", "A", for_s=59.9),)),
    "cancelled": window(stuck=(StuckTask("cancelled", "A", for_s=4.9),)),
    "told anyway": window(failures=(FailureNumbers("main", "ValueError", 1),)),
    "fork": window(forks=1, fork_threads=0),
}


@pytest.mark.parametrize("seen", CALM.values(), ids=CALM)
def test_short_of_its_threshold_no_rule_fires(seen: Window) -> None:
    assert told(seen) == []


def test_stalls_of_one_cause_add_up_over_three_windows() -> None:
    one = window(stalls=(stall("cpu_starved"),))
    assert told(one, one, one) == [("cpu_starvation", "warn")]
    assert told(one, one, one, window()) == []


EXPLAINS = {
    "no CPU": (
        window(
            {"runqueue": 0.5, "blocked": 0.2, "cpu": 0.75, "holding_s": 2.0},
            gil_wait_mean_s=0.0005,
            stalls=(stall("unknown", 1.5),),
        ),
        "cpu_starvation",
        ("loop_blocked_io", "loop_cpu_bound", "never_yielded"),
    ),
    "native": (
        window(
            {"cpu": 0.9},
            gil_wait_max_s=0.5,
            stalls=(stall("native_gil_held", 1.2),),
        ),
        "gil_held_by_native",
        ("loop_cpu_bound", "never_yielded"),
    ),
    "blocked": (
        window(stalls=(stall("blocked_call", 3.0),)),
        "loop_blocked_io",
        ("never_yielded",),
    ),
    "deadlock": (
        window(
            stuck=(StuckTask("cycle", "A", cycle=("A", "B")),),
            locks=(replace(LOCK, wait_s=20.0, waiting=2),),
        ),
        "deadlock",
        ("lock_contention",),
    ),
}


@pytest.mark.parametrize(("seen", "rule", "explained"), EXPLAINS.values(), ids=EXPLAINS)
def test_a_rule_explains_others_away_and_says_so(seen: Window, rule: str, explained: tuple[str, ...]) -> None:
    assert [(found.rule, found.suppressed) for found in judge(seen)] == [(rule, explained)]


def test_another_loop_is_another_matter() -> None:
    loops = (LoopNumbers("0", blocked=0.5), LoopNumbers("1", cpu=0.8, holding_s=2.0))
    found = judge(window(loops=loops))
    assert [(each.rule, each.subject, each.suppressed) for each in found] == [
        ("loop_blocked_io", "loop 0", ()),
        ("loop_cpu_bound", "loop 1", ("never_yielded",)),
    ]


def test_two_faults_are_two_findings_the_weightier_first() -> None:
    seen = window(
        SLOW,
        stalls=(stall("blocked_call"),),
        pools=(replace(POOL, full=9), replace(POOL, name="x", timeouts=1)),
    )
    assert [(each.rule, each.subject) for each in in_order(judge(seen))] == [
        ("loop_blocked_io", "loop 0"),
        ("pool_exhausted", "x"),
        ("pool_exhausted", "db:5432/shop"),
    ]


def test_too_fine_too_coarse_and_spread_are_told_apart() -> None:
    def sentence(loop: dict[str, Any], *tasks: TaskNumbers) -> str:
        (found,) = judge(window({"cpu": 0.8, **loop}, tasks=tasks))
        assert found.bottleneck == "granularity"
        return found.sentence

    spread = [TaskNumbers(f"app.f{n}", busy_s=1.0, steps=1000) for n in range(8)]
    assert "tasks do too little at a time" in sentence({}, TINY)
    assert "a step is too long, of app.handle" in sentence({}, BUSY)
    assert "a step is too long" in sentence({"longest_s": 0.05}, *spread)
    assert "in many places" in sentence({}, *spread)


@pytest.mark.parametrize(
    ("holder", "why", "function"),
    [
        (HolderNumbers("Task-7", 60.1), "a leak, Task-7 has had one for 60.1 s", ""),
        (HolderNumbers("Task-7", 0.2, is_gone=True), "a leak, Task-7 has ended", ""),
        (
            HolderNumbers(
                "Task-7", 0.9, "app.handle", ("asyncio.tasks.sleep (t.py:1)", "app.handle (a.py:3)")
            ),
            "held across an await of something else, by app.handle",
            "app.handle",
        ),
        (
            HolderNumbers(
                "Task-7", 0.9, "app.handle", ("asyncpg.protocol.query (p:1)", "app.handle (a.py:3)")
            ),
            "too small",
            "app.handle",
        ),
    ],
)
def test_a_pool_is_exhausted_for_one_of_four_reasons(holder: HolderNumbers, why: str, function: str) -> None:
    (found,) = judge(window(pools=(replace(POOL, full=9, pending=4, holders=(holder,)),)))
    assert why in found.sentence
    assert (found.culprit.function, found.culprit.resource) == (function, POOL.name)


def test_connections_that_are_used_for_much_longer_than_their_queries_are_held() -> None:
    pool = replace(POOL, full=9, use_p95_s=1.0, query_p95_s=0.1, holders=(HolderNumbers("Task-7", 1.0),))
    assert "held across an await" in judge(window(pools=(pool,)))[0].sentence
    assert "too small" in judge(window(pools=(replace(pool, use_p95_s=0.5),)))[0].sentence


def growing(*live: int, made: int = 0) -> list[Window]:
    """Windows with so many live tasks in each."""
    return [
        window(tasks=(TaskNumbers("app.watch", live=each, created_ever=max(made, each)),)) for each in live
    ]


def test_tasks_that_become_more_for_five_minutes_leak() -> None:
    *history, last = growing(*range(72, 102))
    (found,) = judge(last, history)
    assert (found.rule, found.subject, found.culprit.function) == ("task_leak", "app.watch", "app.watch")


@pytest.mark.parametrize(
    "live",
    [
        pytest.param(range(71, 101), id="a hundred is not enough"),
        pytest.param(range(73, 102), id="not for long enough"),
        pytest.param([*range(200, 229), 227], id="some have ended"),
        pytest.param([*range(200, 219), *[300] * 11], id="no more of them"),
        pytest.param([200] * 30, id="as many as ever"),
    ],
)
def test_tasks_that_are_many_do_not_leak(live: Any) -> None:
    *history, last = growing(*live)
    assert len(history) + 1 <= lifetime_rules.LEAK_WINDOWS
    assert judge(last, history) == []


ADVICE = {
    "time.sleep": "asyncio.sleep",
    "requests.api.get": "async client",
    "psycopg2.connect": "async client",
    "sqlite3.Cursor.execute": "async interface",
    "os.fsync": "files block",
    "subprocess.run": "create_subprocess_exec",
    "library.wait_for_it": "asyncio.to_thread",
}


@pytest.mark.parametrize(("call", "advice"), ADVICE.items())
def test_the_advice_fits_the_call(call: str, advice: str) -> None:
    (found,) = judge(window(stalls=(stall("blocked_call", call=call, frames=("app.handle (a.py:1)",)),)))
    assert advice in found.advice
    assert str(found.culprit) == f"app.handle in {call}"
    assert found.traces == ("ab" * 16,)
    assert found.confidence == "sampled n=8"


@pytest.mark.parametrize(("seen", "rule", "severity"), FIRES.values(), ids=FIRES)
def test_every_finding_says_what_is_wrong_and_what_to_do(seen: Window, rule: str, severity: str) -> None:
    (found,) = judge(seen)
    assert found.sentence.endswith(".")
    assert found.advice.endswith((".", ")"))
    assert found.evidence
    assert any(each.threshold is not None for each in found.evidence)
    assert all(each.unit for each in found.evidence)
    assert found.bottleneck in ("", *CLASSES)
    assert (found.began_unix_ns, found.seen_unix_ns) == (S, 11 * S)


def test_every_rule_has_its_place() -> None:
    assert [rule.name for rule in RULES] == list(ORDER)
    assert len(RULES) == 18
    fired = {rule for _, rule, _ in FIRES.values()}
    assert fired | {"task_leak"} == set(ORDER)
    assert all(set(rule.explains) <= set(ORDER) for rule in RULES)
