from __future__ import annotations

import json
from typing import Any

import pytest

from otel_concurrency import readiness
from otel_concurrency.endpoints import ready as ready_module
from otel_concurrency.endpoints.ready import Delays, Ready
from otel_concurrency.endpoints.request import Request
from otel_concurrency.instrumentors import event_loops
from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.probes.loop_time import NO_TIME, SELECT, LoopTimeRow
from otel_concurrency.probes.thread_clock import ThreadUse
from otel_concurrency.snapshot import Snapshot
from otel_concurrency.snapshot.live import LiveExecutor, LivePool


def ask() -> tuple[int, Any]:
    response = Ready(1.0)(Request("GET", "/ready", {}, {}, True))
    return response.status, json.loads(response.body)


def seen(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    monkeypatch.setattr(ready_module.snapshot, "take_levels", lambda: Snapshot(**parts))


def test_a_program_that_needs_nothing_is_ready() -> None:
    status, content = ask()
    assert (status, content["status"], content["troubles"]) == (200, "ready", [])


def test_each_trouble_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(
        monkeypatch,
        pools=(
            LivePool("db", "orders", used=5, limit=5, pending=3, longest_wait_s=1.2),
            LivePool("db", "busy", used=5, limit=5, pending=3, longest_wait_s=0.2),
        ),
        executors=(
            LiveExecutor("default", "thread", active=4, limit=4, queued=40),
            LiveExecutor("full", "thread", active=4, limit=4, queued=39),
            LiveExecutor("unknown", "anyio"),
        ),
    )
    monkeypatch.setattr(readiness, "_checks", {})
    readiness.add_check("cache", lambda: False)
    monkeypatch.setattr(ready_module, "shutdown_reason", lambda: "SIGTERM")
    status, content = ask()
    assert status == 503
    assert content["troubles"] == [
        "told to end: SIGTERM",
        "check cache: says no",
        "pool orders is exhausted",
        "executor default has too much to do",
    ]
    assert [pool["saturated"] for pool in content["pools"]] == [True, False]
    assert [each["saturated"] for each in content["executors"]] == [True, False, False]


def test_delays_are_those_of_the_last_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was slow once does not count for ever."""
    histogram = Histogram()

    def rows() -> list[LoopTimeRow]:
        histogram.sort_in()
        time = NO_TIME._replace(delays=histogram.read())
        return [LoopTimeRow(0, "selector", SELECT, True, 1, time, ThreadUse(), None, None)]

    def count(seconds: float) -> None:
        for _ in range(100):
            histogram.observe(int(seconds * 1e9))

    monkeypatch.setattr(event_loops, "loop_rows", rows)
    delays = Delays()
    told = []
    for at, slow in enumerate([2.0, 2.0, 0.001, 0.001]):
        count(slow)
        told.append(delays.p95(at * 10.0)[0, "selector"])
    assert told == pytest.approx([2.0, 2.0, 0.001, 0.001], rel=0.05)
    assert delays.p95(100.0) == {(0, "selector"): None}
