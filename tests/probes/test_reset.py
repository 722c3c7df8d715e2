"""A task probe in a forked child: it begins at zero, and what was alive before counts nowhere."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.tasks import TaskProbe, TaskRow
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> Iterator[TaskProbe]:
    probe = make_task_probe(native=request.param)
    hook = TaskHook(probe)
    hook.install()
    yield probe
    hook.remove()


def here(probe: TaskProbe) -> dict[str, TaskRow]:
    """The rows of this module's coroutines that counted something, by short name."""
    return {
        row.function.rpartition(".")[2]: row
        for row in probe.read_rows()
        if row.function.startswith(__name__) and row != blank(row)
    }


def blank(row: TaskRow) -> TaskRow:
    nothing = HistogramState()
    return TaskRow(
        row.function, 0, 0, 0, 0, {}, 0, row.sees_steps, 0, 0, nothing, nothing, nothing, nothing, nothing
    )


def states(probe: TaskProbe) -> list[tuple[int, int, int]]:
    return [(row.running, row.scheduled, row.waiting) for row in probe.read_loops()]


async def waits(event: asyncio.Event) -> None:
    await event.wait()


async def fails(event: asyncio.Event) -> None:
    await event.wait()
    raise ValueError


async def passes() -> None:
    await asyncio.sleep(0)


def test_what_was_alive_counts_nowhere(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    async def main() -> list[Any]:
        event = asyncio.Event()
        await asyncio.gather(*(passes() for _ in range(3)))
        tasks = [asyncio.ensure_future(make(event)) for make in (waits, fails, waits, waits)]
        await asyncio.sleep(0)
        ends_in_a_cycle = asyncio.ensure_future(waits(asyncio.Event()))
        await asyncio.sleep(0)
        probe.reset()
        seen: list[Any] = [here(probe)]
        tasks[2].cancel()
        del ends_in_a_cycle
        gc.collect()
        event.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        seen.append(here(probe))
        await asyncio.gather(*(passes() for _ in range(3)), return_exceptions=True)
        seen.append(here(probe))
        return seen

    at_once, afterwards, later = run(loop_factory, main())
    assert at_once == {}
    assert afterwards == {}
    [(name, row)] = later.items()
    assert (name, row.created, row.finished, row.live) == ("passes", 3, 3, 0)
    assert row.finished_durations.count == 3
    assert min(min(each) for each in states(probe) or [(0, 0, 0)]) >= 0


def test_a_step_under_way_is_survived(probe: TaskProbe, loop_factory: LoopFactory) -> None:
    """The forking coroutine itself goes on in the child."""

    async def forks() -> None:
        await asyncio.sleep(0)
        probe.reset()
        await asyncio.gather(passes(), passes())

    async def main() -> None:
        await asyncio.gather(forks(), passes())

    run(loop_factory, main())
    rows = here(probe)
    assert list(rows) == ["passes"]
    assert (rows["passes"].created, rows["passes"].finished, rows["passes"].live) == (2, 2, 0)
    assert [each for each in states(probe) if any(each)] == []


def test_resets_leave_nothing_behind(probe: TaskProbe) -> None:
    async def main() -> None:
        event = asyncio.Event()
        tasks = [asyncio.ensure_future(waits(event)) for _ in range(50)]
        await asyncio.sleep(0)
        probe.reset()
        event.set()
        await asyncio.gather(*tasks)

    def blocks() -> int:
        asyncio.run(main())
        gc.collect()
        return sys.getallocatedblocks()

    settled = [blocks() for _ in range(6)][-1]
    assert [blocks() for _ in range(5)][-1] - settled < 100
    before = sys.getrefcount(probe._native) if hasattr(probe, "_native") else 0
    asyncio.run(main())
    assert (sys.getrefcount(probe._native) if hasattr(probe, "_native") else 0) == before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_counts_its_own(probe: TaskProbe) -> None:
    """Beside a thread that is inside a step: in the child it is gone, with its step."""
    inside, over = threading.Event(), threading.Event()

    async def blocks() -> None:
        inside.set()
        over.wait(30)

    thread = threading.Thread(target=asyncio.run, args=(blocks(),))
    thread.start()
    assert inside.wait(30)

    async def main() -> tuple[int, bytes]:
        event = asyncio.Event()
        tasks = [asyncio.ensure_future(waits(event)) for _ in range(3)]
        await asyncio.sleep(0)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                probe.reset()
                asyncio._set_running_loop(None)  # as CPython itself does from 3.12 on
                asyncio.new_event_loop().run_until_complete(passes())
                tasks.clear()
                rows = {name: (row.created, row.finished, row.live) for name, row in here(probe).items()}
                native: Any = probe
                running = [name for _, name, _ in native.running()] if probe.way != "pure" else ["own"]
                os.write(write, f"{rows} {len(running)} {threading.active_count()}".encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
        os.waitpid(pid, 0)  # noqa: ASYNC222
        event.set()
        await asyncio.gather(*tasks)
        return pid, told

    _, told = asyncio.run(main())
    over.set()
    thread.join(30)
    # Where a step is under way that began before the fork, its own thread still shows it.
    assert told.decode() in ("{'passes': (1, 1, 0)} 1 1", "{'passes': (1, 1, 0)} 0 1")
    rows = here(probe)
    assert (rows["waits"].created, rows["waits"].finished) == (3, 3)
    assert "passes" not in rows
