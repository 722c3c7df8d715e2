from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.endpoints import routes
from otel_concurrency.endpoints.debugging import Debugging
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.routes import find_route

Ask = Callable[..., Any]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Asks from outside, while a loop in another thread has three tasks that wait."""
    monkeypatch.setattr(routes, "_routes", {})
    Debugging().add_routes()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def hold(lock: asyncio.Lock) -> None:
        async with lock:
            ready.set()
            await end.wait()

    async def want(lock: asyncio.Lock) -> None:
        async with lock:
            pass

    async def main() -> None:
        lock = asyncio.Lock()
        await asyncio.gather(
            asyncio.create_task(hold(lock), name="holder"),
            *(asyncio.create_task(want(lock)) for _ in range(2)),
        )

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="the loop's")
    thread.start()
    assert ready.wait(30)

    def ask(path: str, **query: str) -> Any:
        route = find_route(path)
        assert route is not None
        response = route.answer(Request("GET", path, query, {}, True))
        assert response.status == 200
        return json.loads(response.body)

    yield ask
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


def mine(tasks: list[dict[str, Any]]) -> list[str]:
    return sorted(task["coroutine"].rpartition(".")[2] for task in tasks if "<locals>" in task["coroutine"])


def test_tasks_are_told_those_that_are_asked_for(ask: Ask) -> None:
    assert mine(ask("/debug/tasks")["tasks"]) == ["hold", "main", "want", "want"]
    of_group = ask("/debug/tasks", group="*.want")
    assert (mine(of_group["tasks"]), of_group["found"]) == (["want", "want"], 2)
    assert len(ask("/debug/tasks", group="*.want", limit="1")["tasks"]) == 1
    assert mine(ask("/debug/tasks", name="holder")["tasks"]) == ["hold"]
    assert mine(ask("/debug/tasks", wait="lock")["tasks"]) == ["want", "want"]
    assert ask("/debug/tasks", state="nonsense")["tasks"] == []
    assert ask("/debug/tasks", limit="many")["task_count"] >= 4


def test_each_part_of_the_picture_can_be_had(ask: Ask) -> None:
    graph = ask("/debug/graph")
    names = {task["id"]: task["coroutine"].rpartition(".")[2] for task in graph["tasks"]}
    assert ("main", "hold") in {(names.get(e["waiter"]), names.get(e["on"])) for e in graph["edges"]}
    assert "the loop's" in [thread["name"] for thread in ask("/debug/threads")["threads"]]
    assert {"pools", "executors"} <= set(ask("/debug/pools"))
    assert [len(lock["waiting"]) for lock in ask("/debug/locks")["locks"]].count(2) == 1
    assert ask("/debug/diagnose")["open"] == []
    whole = ask("/debug/snapshot")
    assert {"tasks", "threads", "pools", "locks", "edges"} <= set(whole)
