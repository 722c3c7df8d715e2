"""The trace: valid, and with what was seen on its tracks."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
from typing import Any

import pytest

from otel_concurrency.diagnosis.finding import Finding
from otel_concurrency.snapshot import Snapshot
from otel_concurrency.snapshot.live import LiveExecutor, LiveLoop, LivePool, LiveThread
from otel_concurrency.snapshot.live_tasks import FramePlace, LiveTask, Wait
from otel_concurrency.timeline.perfetto import LOOP_TRACKS, trace_of
from otel_concurrency.timeline.recording import Ring, record
from tests.timeline.trace_format import errors_of

BEGAN_NS = 1_700_000_000_000_000_000
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TASK = LiveTask(1, "Task-1", "shop.check_out", "running", age_s=60.0, trace_id=TRACE_ID)
WAITING = dataclasses.replace(TASK, state="waiting", wait=Wait("lock", target=9, target_name="shop:12"))
THREAD = LiveThread(11, 4711, "MainThread", state="running", frames=(FramePlace("shop.fetch", "shop.py", 7),))


def at(ms: float, **content: Any) -> Snapshot:
    return Snapshot(taken_unix_ns=BEGAN_NS + int(ms * 1e6), pid=7, **content)


def of_phase(trace: dict[str, Any], phase: str) -> list[tuple[Any, ...]]:
    return [
        (event["name"], event["tid"], event["ts"], event.get("dur"))
        for event in trace["traceEvents"]
        if event["ph"] == phase
    ]


def test_a_loop_s_track_tells_who_held_it_and_since_when() -> None:
    loops = [
        LiveLoop(0, "uvloop", 11, None),
        LiveLoop(0, "uvloop", 11, 0.005, 1, "shop.check_out"),
        LiveLoop(0, "uvloop", 11, 0.055, 1, "shop.check_out"),
        LiveLoop(0, "uvloop", 11, 0.001, 2, "shop.fetch"),
        LiveLoop(0, "uvloop", 11, None),
    ]
    trace = trace_of(at(50 * n, loops=(loop,)) for n, loop in enumerate(loops))
    assert errors_of(trace) == []
    assert of_phase(trace, "X") == [
        ("shop.check_out", LOOP_TRACKS, 45_000.0, 105_000.0),
        ("shop.fetch", LOOP_TRACKS, 150_000.0, 50_000.0),
    ]


def test_a_task_s_track_tells_what_it_did_and_its_trace() -> None:
    tasks = [TASK, WAITING, WAITING, TASK]
    trace = trace_of(at(100 * n, tasks=(task,)) for n, task in enumerate(tasks))
    assert errors_of(trace) == []
    assert [(event["ph"], event["name"], event["ts"]) for event in trace["traceEvents"] if "id" in event] == [
        ("b", "shop.check_out", 0.0),
        ("b", "running", 0.0),
        ("e", "running", 100_000.0),
        ("b", "waits: lock shop:12", 100_000.0),
        ("e", "waits: lock shop:12", 300_000.0),
        ("b", "running", 300_000.0),
        ("e", "running", 301_000.0),
        ("e", "shop.check_out", 301_000.0),
    ]
    [first] = [event for event in trace["traceEvents"] if event["ph"] == "b"][:1]
    assert first["args"] == {
        "task": "Task-1",
        "coroutine": "shop.check_out",
        "age_s": 60.0,
        "trace_id": TRACE_ID,
    }


def test_a_thread_s_track_tells_where_it_stood() -> None:
    waits = dataclasses.replace(THREAD, state="sleep", waits_for="queue_get")
    trace = trace_of(at(10 * n, threads=(thread,)) for n, thread in enumerate([THREAD, THREAD, waits]))
    assert errors_of(trace) == []
    assert of_phase(trace, "X") == [
        ("running: shop.fetch", 4711, 0.0, 20_000.0),
        ("queue_get: shop.fetch", 4711, 20_000.0, 1_000.0),
    ]


def test_counters_and_findings_stand_beside() -> None:
    found = Finding("spin", "loop 0", "crit", "loop 0 spins", began_unix_ns=BEGAN_NS + 5_000_000)
    older = dataclasses.replace(found, rule="task_leak", began_unix_ns=1)
    seen = at(
        0,
        states={"waiting": 3},
        pools=(LivePool("db", "orders", 5, pending=2),),
        executors=(LiveExecutor("asyncio", "thread", 1, queued=4),),
    )
    trace = trace_of([at(10), seen], [found, older], program="shop")
    assert errors_of(trace) == []
    told = {event["name"]: event["args"] for event in trace["traceEvents"] if event["ts"] == 0}
    assert told["tasks"] == {"running": 0, "scheduled": 0, "waiting": 3}
    assert told["db pool orders"] == {"used": 5, "pending": 2}
    assert told["thread executor asyncio"] == {"active": 1, "queued": 4}
    assert told["process_name"] == {"name": "shop"}
    assert of_phase(trace, "i") == [("task_leak", 0, 0.0, None), ("spin", 0, 5_000.0, None)]


def test_nothing_is_a_trace_too() -> None:
    assert trace_of([])["traceEvents"] == []
    assert errors_of(trace_of([])) == []


@pytest.mark.parametrize("seed", range(30))
def test_whatever_was_seen_the_trace_is_valid(seed: int) -> None:
    numbers = random.Random(seed)

    def task(identity: int) -> LiveTask:
        wait = numbers.choice([None, Wait("sleep"), Wait("lock", target=numbers.randint(1, 2))])
        age = numbers.choice([None, 0.0, numbers.random() * 3])
        return LiveTask(
            identity, f"Task-{identity}", "f", "running" if wait is None else "waiting", age_s=age, wait=wait
        )

    def loop(identity: int | None) -> LiveLoop:
        held = numbers.choice([None, numbers.random() * 0.3])
        return LiveLoop(identity, "selector", 1, held, numbers.randint(1, 2), numbers.choice(["f", ""]))

    def some(make: Any, identities: list[Any]) -> tuple[Any, ...]:
        return tuple(make(each) for each in identities if numbers.random() < 0.8)

    seen = [
        at(
            numbers.random() * 2_000,
            tasks=some(task, [1, 2, 3, 4]),
            loops=some(loop, [0, 1, None]),
            threads=tuple(
                dataclasses.replace(THREAD, native_id=n, state=numbers.choice(["running", "sleep"]))
                for n in range(numbers.randint(0, 3))
            ),
        )
        for _ in range(30)
    ]
    assert errors_of(trace_of(seen)) == []


@pytest.mark.parametrize(
    "event",
    [
        {"ph": "Z"},
        {"ph": "X", "name": "f", "pid": 1, "tid": 1, "ts": 0.0, "cat": "t"},
        {"ph": "X", "name": "f", "pid": 1, "tid": 1, "ts": 0.0, "cat": "t", "dur": 1},
        {"ph": "b", "name": "f", "pid": 1, "tid": 1, "ts": 0.0, "cat": "t", "id": "0x1"},
        {"ph": "e", "name": "f", "pid": 1, "tid": 1, "ts": 0.0, "cat": "t", "id": "0x1"},
        {"ph": "C", "name": "f", "pid": 1, "tid": 1, "ts": 0.0, "args": {"a": "b"}},
        {"ph": "M", "name": "f", "pid": 1, "tid": 1, "ts": 0.0, "args": {}},
        {"ph": "i", "name": "f", "pid": "1", "tid": 1, "ts": 0.0, "s": "p"},
    ],
)
def test_what_is_wrong_is_found(event: dict[str, Any]) -> None:
    """The check itself: an unknown phase, no duration, no name of the track, no end, no beginning, …"""
    assert len(errors_of({"traceEvents": [event]})) == 1


def test_a_recording_of_this_process_has_its_tasks() -> None:
    seen: list[Snapshot] = []

    async def slow_order(is_over: asyncio.Event) -> None:
        await is_over.wait()

    async def main() -> None:
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()
        task = asyncio.ensure_future(slow_order(is_over))

        def look() -> None:
            seen.extend(record(0.05, every_s=0.01))
            loop.call_soon_threadsafe(is_over.set)

        thread = threading.Thread(target=look)
        thread.start()
        await task
        thread.join()

    asyncio.run(main())
    trace = trace_of(seen)
    assert errors_of(trace) == []
    names = {event["name"] for event in trace["traceEvents"] if event["ph"] == "b"}
    assert any(name.endswith("slow_order") for name in names)
    assert "waits: event" in {name[:12] for name in names}


def test_a_recording_goes_easy() -> None:
    """What takes 20 ms is taken five times a second: a tenth of a CPU."""
    now_s, pauses = [0.0], []

    def look() -> Snapshot:
        now_s[0] += 0.02
        return Snapshot()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now_s[0] += seconds

    taken = list(record(1.0, look=look, clock=lambda: now_s[0], sleep=sleep))
    assert len(taken) == 6
    assert pauses[:4] == [pytest.approx(0.18)] * 4


def test_a_ring_keeps_the_last_seconds() -> None:
    ring = Ring(1.0)
    for ms in range(0, 3_000, 100):
        ring.add(at(ms))
    assert [(each.taken_unix_ns - BEGAN_NS) // 10**6 for each in ring] == list(range(1_900, 3_000, 100))
