"""Findings and windows, to JSON and back."""

from __future__ import annotations

import json

from otel_concurrency.diagnosis.board import Board, Diagnosis
from otel_concurrency.diagnosis.finding import Culprit, Evidence, Finding, StackCount
from otel_concurrency.diagnosis.window import (
    ExecutorNumbers,
    HolderNumbers,
    LoopNumbers,
    PoolNumbers,
    StallNumbers,
    Window,
)

FINDING = Finding(
    "loop_blocked_io",
    "loop 0",
    "crit",
    "Event loop 0 was blocked for 0.3 s",
    bottleneck="io_wait",
    evidence=(Evidence("blocked", 0.74, "1", 0.10), Evidence("delay p95", 0.026, "s")),
    culprit=Culprit("app.handle", call="time.sleep", file="app.py", line=7),
    stacks=(StackCount(("app.handle (app.py:7)", "asyncio.run (x.py:1)"), 12),),
    traces=("ab" * 16,),
    advice="await asyncio.sleep",
    suppressed=("never_yielded",),
    confidence="sampled n=12",
    is_event=True,
    began_unix_ns=1,
    seen_unix_ns=2,
)


def test_a_finding_comes_back_whole() -> None:
    assert Finding.from_json(FINDING.to_json()) == FINDING


def test_a_diagnosis_comes_back_whole() -> None:
    diagnosis = Diagnosis(True, (FINDING,), (), 3, 10.0, 5)
    assert Diagnosis.from_json(diagnosis.to_json()) == diagnosis


def test_a_window_comes_back_whole() -> None:
    window = Window(
        1,
        10_000_000_001,
        loops=(LoopNumbers("0", "selector", 0.5, 0.4, None, 0.1),),
        stalls=(StallNumbers("0", "spin", 5.0, frames=("a", "b")),),
        pools=(PoolNumbers("db:5432/shop", holders=(HolderNumbers("Task-1", 61.0),)),),
        executors=(ExecutorNumbers("pool", stacks=(("a", "b"), ("c",)), worker_busy_s=(0.5,)),),
        throttled=None,
    )
    assert Window.from_json(window.to_json()) == window
    assert window.seconds == 10


def test_a_later_version_may_know_more() -> None:
    """What an older reader does not know it leaves out; what an older writer did not know has its default."""
    data = json.loads(FINDING.to_json())
    data["mood"] = "grim"
    del data["advice"]
    assert Finding.from_data(data) == FINDING.with_(advice="")


def test_nothing_is_open_where_nobody_judges() -> None:
    assert Board().now == Diagnosis(is_on=False)


def test_a_culprit_is_told_in_few_words() -> None:
    assert str(FINDING.culprit) == "app.handle in time.sleep"
    assert str(Culprit(resource="db:5432/shop")) == "db:5432/shop"
    assert str(Culprit()) == "nobody was seen"
