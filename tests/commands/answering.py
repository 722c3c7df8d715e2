"""A program that can be asked, as commands see one: real HTTP, made-up content."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from otel_concurrency.diagnosis.board import Diagnosis
from otel_concurrency.diagnosis.finding import Culprit, Evidence, Finding, StackCount
from otel_concurrency.snapshot import Snapshot
from otel_concurrency.snapshot.live import LiveExecutor, LiveLoop, LivePool, LiveThread
from otel_concurrency.snapshot.live_tasks import CoroutineCount, Deadlock, Edge, FramePlace, LiveTask, Wait

CHECK_OUT = LiveTask(
    1,
    "Task-1",
    "shop.check_out",
    "waiting",
    loop=0,
    loop_type="uvloop",
    age_s=12.5,
    busy_s=0.25,
    steps=1_234,
    wait=Wait("lock", has_timeout=True, for_s=3.0, target_name="shop:12", tasks=(2,)),
    frames=(FramePlace("asyncio.locks.Lock.acquire", "/lib/asyncio/locks.py", 113),),
    at=FramePlace("shop.check_out", "/app/shop.py", 31),
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
)
REFILL = LiveTask(
    2, "refill\x1b[31m", "shop.refill", "waiting", age_s=1.0, wait=Wait("gather", tasks=(3,)), is_orphan=True
)
FETCH = LiveTask(3, "Task-3", "shop.fetch", "running", frames=(FramePlace("shop.fetch", "/app/shop.py", 7),))
SNAPSHOT = Snapshot(
    taken_unix_ns=1_700_000_000_000_000_000,
    took_s=0.01,
    pid=7,
    python="3.13.1",
    probe="proxy",
    task_count=3,
    states={"waiting": 2, "running": 1},
    waits={"lock": 1, "gather": 1},
    coroutines=(
        CoroutineCount("shop.check_out", 1, {"waiting": 1}, {"lock": 1}),
        CoroutineCount("shop.fetch", 2, {"running": 1, "waiting": 1}),
    ),
    tasks=(CHECK_OUT, REFILL, FETCH),
    edges=(Edge(1, 2, "lock", 9), Edge(2, 3, "gather")),
    loops=(LiveLoop(0, "uvloop", 11, 0.5, 3, "shop.fetch", 3),),
    threads=(
        LiveThread(
            11, 4711, "MainThread", False, "running", "", 1.5, 0, (FramePlace("shop.fetch", "shop.py", 7),)
        ),
    ),
    executors=(LiveExecutor("asyncio", "thread", 1, 2, 8, 0),),
    pools=(LivePool("db", "orders", 5, 0, 3, 5),),
)
CIRCLE = Snapshot(
    task_count=2,
    tasks=(CHECK_OUT, REFILL),
    edges=(Edge(1, 2, "lock", 9), Edge(2, 1, "lock", 10)),
    deadlocks=(
        Deadlock(
            (Edge(1, 2, "lock", 9), Edge(2, 1, "lock", 10)),
            ("Task-1", "refill"),
            ("shop.check_out", "shop.refill"),
            ("shop:12", "shop:13"),
        ),
    ),
)
FINDING = Finding(
    "loop_blocked_io",
    "loop 0",
    "crit",
    "loop 0 was blocked for 74 % of the time",
    bottleneck="io_wait",
    evidence=(Evidence("blocked share", 0.74, "1", 0.1), Evidence("longest", 0.31, "s", 0.25)),
    culprit=Culprit("shop.check_out", "time.sleep", "shop.py", 12),
    stacks=(StackCount(("time.sleep", "shop.check_out (shop.py:12)"), 7),),
    traces=("4bf92f3577b34da6a3ce929d0e0e4736",),
    advice="use asyncio.sleep",
)
DIAGNOSIS = Diagnosis(True, (FINDING,), (), 12, 10.0, 1_700_000_000_000_000_000)
HEALTHY = Diagnosis(True, (), (), 3, 10.0)


def answers(seen: Snapshot = SNAPSHOT, found: Diagnosis = DIAGNOSIS) -> dict[str, Any]:
    """Return what a program answers, by path."""
    whole = seen.to_data()
    return {
        "/debug/snapshot": whole,
        "/debug/tasks": whole | {"found": len(seen.tasks)},
        "/debug/graph": whole | {"orphans": [task.id for task in seen.orphans]},
        "/debug/diagnose": found.to_data() | {"loops": []},
    }


@contextlib.contextmanager
def answering(content: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """Answer, content or what it returns; yields the URL, and a list of the paths and queries asked for."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            asked.append((url.path, dict(parse_qsl(url.query))))
            found = content.get(url.path)
            body = json.dumps(
                {"error": "no such path"} if found is None else found() if callable(found) else found
            ).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
