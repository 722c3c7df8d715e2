"""Programs whose objects do not want to be looked at."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from otel_concurrency.snapshot import take
from tests.loops import run


class Unspeakable:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError("asked for a repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    def __hash__(self) -> int:
        raise RuntimeError("hashed")

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")

    def __await__(self) -> Any:
        return asyncio.sleep(60).__await__()


class Handmade(Coroutine[Any, Any, None]):
    """A coroutine that is none, with traps in the place of what a real one has."""

    asked: list[str] = []

    @property
    def cr_await(self) -> Any:
        self.asked.append("cr_await")
        raise RuntimeError("asked what it awaits")

    @property
    def cr_frame(self) -> Any:
        self.asked.append("cr_frame")
        raise SystemExit("asked for its frame")

    def __init__(self) -> None:
        self._inner = asyncio.sleep(60)

    def send(self, value: Any) -> Any:
        return self._inner.send(value)

    def throw(self, *args: Any) -> Any:
        return self._inner.throw(*args)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._inner.__await__()


async def with_unspeakable() -> None:
    it = Unspeakable()
    await it
    del it


async def deep(depth: int) -> None:
    await (deep(depth - 1) if depth else asyncio.sleep(60))


def test_what_does_not_want_to_be_looked_at_is_told_as_far_as_it_can() -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(each) for each in (with_unspeakable(), Handmade(), deep(500))]
        await asyncio.sleep(0.01)
        snapshot = await asyncio.to_thread(take)
        told = {task.coroutine: task for task in snapshot.tasks if task.id in map(id, tasks)}
        assert set(told) == {
            f"{__name__}.with_unspeakable",
            f"{__name__}.Handmade",
            f"{__name__}.deep",
        }
        assert snapshot.troubles == ()
        assert Handmade.asked == []
        wait = told[f"{__name__}.with_unspeakable"].wait
        assert wait is not None
        assert wait.kind == "sleep"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(asyncio.new_event_loop, main())


def test_no_frame_and_no_task_is_kept() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        task = asyncio.ensure_future(asyncio.wait([future]))
        await asyncio.sleep(0)
        before = sys.getrefcount(task), sys.getrefcount(future)
        for _ in range(3):
            await asyncio.to_thread(take)
        assert (sys.getrefcount(task), sys.getrefcount(future)) == before
        future.set_result(None)
        await task

    run(asyncio.new_event_loop, main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_take_one_though_another_thread_did_at_the_fork() -> None:
    stop = threading.Event()

    def looking() -> None:
        while not stop.is_set():
            take()

    thread = threading.Thread(target=looking)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if not child:
                os._exit(0 if take().pid == os.getpid() else 1)
            _, status = os.waitpid(child, 0)
            assert status == 0
    finally:
        stop.set()
        thread.join()


def test_threads_are_told_with_their_stacks() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="patient")
    thread.start()
    found = []
    for _ in range(1000):  # until it has come as far as that
        found = [each for each in take().threads if each.name == "patient" and each.waits_for == "event"]
        if found:
            break
    go_on.set()
    thread.join()
    (told,) = found
    assert told.native_id == thread.native_id
    assert told.frames[0].function.startswith("threading.")
    assert told.frames[0].line > 0
