"""`/debug/...`: what the program does right now, as JSON. Parts of a snapshot, and what a diagnosis says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from otel_concurrency import snapshot
from otel_concurrency.diagnosis import records
from otel_concurrency.diagnosis.board import BOARD
from otel_concurrency.endpoints.health import loops_now
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, json_response
from otel_concurrency.endpoints.routes import Route, add_route
from otel_concurrency.snapshot import Snapshot
from otel_concurrency.snapshot.live_tasks import LiveTask

MAX_TASKS = 100_000
DEFAULT_TASKS = 1_000

_HEAD = ("taken_unix_ns", "took_s", "pid", "python", "troubles")
_OF_TASKS = ("probe", "task_count", "states", "waits", "coroutines", "left_out", "uncounted", "loops")
_OF_LOCKS = ("locks", "queues", "deadlocks")
_OF_GRAPH = ("task_count", "edges", "deadlocks", "locks", "left_out")


class Debugging:
    """Answers them; one snapshot is taken at a time."""

    def __init__(self, take: Callable[..., Snapshot] = snapshot.take) -> None:
        self._take = take
        self._turn = threading.Lock()

    def add_routes(self) -> None:
        """Answer from now on."""
        add_route(
            Route(
                "/debug/tasks",
                self.tasks,
                "tasks: ?limit=1000&state=waiting&group=module.function (a glob)&wait=lock&name=Task-1",
            )
        )
        add_route(
            Route("/debug/graph", self.graph, "who waits for whom, deadlocks, and whom nobody can wake")
        )
        add_route(Route("/debug/threads", threads, "threads: where each stands, what the kernel says of it"))
        add_route(Route("/debug/pools", pools, "connection pools and executors: who has what, who waits"))
        add_route(Route("/debug/locks", self.locks, "locks and queues that somebody waits for, and who"))
        add_route(Route("/debug/snapshot", self.whole, "all of it at once: ?limit=1000"))
        add_route(Route("/debug/diagnose", diagnose, "what is wrong, by whom, and what helps"))

    def tasks(self, request: Request) -> Response:
        """Tell of tasks."""
        limit = _limit(request)
        wanted = {
            name: request.query[name] for name in ("state", "group", "wait", "name") if name in request.query
        }
        seen = self._look(max_tasks=MAX_TASKS if wanted else limit, with_threads=False)
        found = [task for task in seen.tasks if _fits(task, wanted)]
        told = records.to_data(replace(seen, tasks=tuple(found[:limit])))
        return json_response(_chosen(told, (*_OF_TASKS, "tasks")) | {"found": len(found)})

    def graph(self, request: Request) -> Response:
        """Tell who waits for whom."""
        seen = self._look(max_tasks=_limit(request), with_threads=False)
        data = seen.to_data()
        of_tasks = ("id", "name", "coroutine", "state", "wait", "at", "trace_id", "is_orphan")
        tasks = [{name: task[name] for name in of_tasks} for task in data["tasks"]]
        orphans = [task["id"] for task in tasks if task["is_orphan"]]
        return json_response(_chosen(data, _OF_GRAPH) | {"tasks": tasks, "orphans": orphans})

    def whole(self, request: Request) -> Response:
        """Tell everything."""
        return json_response(self._look(max_tasks=_limit(request)).to_data())

    def locks(self, request: Request) -> Response:
        """Tell of locks and queues."""
        seen = self._look(max_tasks=_limit(request), with_threads=False)
        return json_response(_chosen(seen.to_data(), _OF_LOCKS))

    def _look(self, **options: Any) -> Snapshot:
        with self._turn:
            return self._take(**options)


def threads(request: Request) -> Response:
    """Tell of threads."""
    seen = snapshot.take_levels(with_threads=True)
    return json_response(_chosen(seen.to_data(), ("threads",)) | {"loops": loops_now()})


def pools(request: Request) -> Response:
    """Tell of connection pools and executors."""
    return json_response(_chosen(snapshot.take_levels().to_data(), ("pools", "executors")))


def diagnose(request: Request) -> Response:
    """Tell what was found, and which loops are blocked at this moment: no window has judged that yet."""
    return json_response(BOARD.now.to_data() | {"loops": loops_now()})


def _limit(request: Request) -> int:
    try:
        return max(0, min(int(request.query.get("limit", DEFAULT_TASKS)), MAX_TASKS))
    except ValueError:
        return DEFAULT_TASKS


def _chosen(data: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: data[name] for name in (*_HEAD, *names) if name in data}


def _fits(task: LiveTask, wanted: dict[str, str]) -> bool:
    told = {
        "state": task.state,
        "group": task.coroutine,
        "wait": task.wait.kind if task.wait is not None else "",
        "name": task.name,
    }
    return all(fnmatchcase(told[name], pattern) for name, pattern in wanted.items())
