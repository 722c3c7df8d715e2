from __future__ import annotations

import json

from otel_concurrency.snapshot.live import (
    ConnectionHolder,
    LiveExecutor,
    LiveLock,
    LiveLoop,
    LivePool,
    LiveQueue,
    LiveThread,
    Snapshot,
)
from otel_concurrency.snapshot.live_tasks import CoroutineCount, Deadlock, Edge, FramePlace, LiveTask, Wait

PLACE = FramePlace("app.serve", "/app.py", 12)
EDGE = Edge(1, 2, "lock", lock=9)
WHOLE = Snapshot(
    taken_unix_ns=1,
    took_s=0.5,
    pid=7,
    python="3.11.4",
    probe="proxy",
    task_count=3,
    states={"waiting": 3},
    waits={"lock": 2, "sleep": 1},
    coroutines=(CoroutineCount("app.serve", 3, {"waiting": 3}, {"lock": 2, "sleep": 1}),),
    tasks=(
        LiveTask(
            1,
            "Task-1",
            "app.serve",
            "waiting",
            loop=0,
            loop_type="selector",
            age_s=1.5,
            steps=3,
            wait=Wait("lock", True, 0.5, True, 9, "app:3", (2,)),
            frames=(PLACE,),
            at=PLACE,
            is_orphan=True,
        ),
    ),
    left_out=2,
    edges=(EDGE,),
    deadlocks=(Deadlock((EDGE,), ("Task-1",), ("app.serve",), ("app:3",)),),
    loops=(LiveLoop(0, "selector", 11, 3.0, 1, "app.serve", 3),),
    threads=(LiveThread(11, 12, "MainThread", frames=(PLACE,)),),
    executors=(LiveExecutor("app", "thread", 1, 2, 3, 4),),
    pools=(LivePool("db", "main", 3, 0, 1, 3, 0.25, (ConnectionHolder("Task-3", 1.0),)),),
    locks=(LiveLock(9, "lock", "app:3", True, (1,), (2,), 0.5),),
    queues=(LiveQueue(10, "app:4", 1, None, 0, 0),),
    troubles=("nothing",),
)


def test_a_snapshot_survives_json() -> None:
    assert Snapshot.from_json(WHOLE.to_json()) == WHOLE


def test_a_snapshot_becomes_plain_data() -> None:
    data = WHOLE.to_data()
    assert json.loads(json.dumps(data))["tasks"][0]["wait"]["tasks"] == [2]
    assert Snapshot.from_data(data) == WHOLE


def test_it_says_in_short_what_is_in_it() -> None:
    assert repr(WHOLE) == "<Snapshot [3 tasks, 1 threads, 0.500 s]>"
    assert str(PLACE) == "app.serve (/app.py:12)"
    assert [task.id for task in WHOLE.orphans] == [1]
