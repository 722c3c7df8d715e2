"""What instrumentors know of a program is in its snapshots."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency.instrumentors.event_loops import EventLoopInstrumentor
from otel_concurrency.instrumentors.queues import QueueInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.instrumentors.threads import ConcurrencyThreadingInstrumentor
from otel_concurrency.snapshot import Snapshot, take
from otel_concurrency.snapshot.live_tasks import LiveTask
from tests.conftest import LoopFactory
from tests.loops import run


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def instrumented(request: pytest.FixtureRequest) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    instrumentors: list[tuple[Any, dict[str, Any]]] = [
        (EventLoopInstrumentor(), {}),
        (ConcurrencyThreadingInstrumentor(), {}),
        (QueueInstrumentor(), {"sync_waits": "names"}),
        (AsyncioTaskInstrumentor(), {"sync_waits": "names", "tracer_provider": provider}),
    ]
    for instrumentor, options in instrumentors:
        instrumentor.instrument(native=request.param, skip_dep_check=True, **options)
    yield provider
    for instrumentor, _ in reversed(instrumentors):
        instrumentor.uninstrument()


async def taken() -> Snapshot:
    found: list[Snapshot] = []
    thread = threading.Thread(target=lambda: found.append(take()), name="otel-concurrency-test")
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    return found[0]


async def holding(lock: asyncio.Lock, go_on: asyncio.Event) -> None:
    await lock.acquire()
    await go_on.wait()
    lock.release()


async def wanting(lock: asyncio.Lock) -> None:
    async with lock:
        pass


def named(snapshot: Snapshot, name: str) -> LiveTask:
    return next(task for task in snapshot.tasks if task.name == name)


def test_a_snapshot_has_what_the_probes_know(loop_factory: LoopFactory, instrumented: TracerProvider) -> None:
    async def main() -> None:
        lock, go_on, queue = asyncio.Lock(), asyncio.Event(), asyncio.Queue[int](7)
        with instrumented.get_tracer("test").start_as_current_span("request") as span:
            holder = asyncio.ensure_future(holding(lock, go_on))
            holder.set_name("holder")
            await asyncio.sleep(0)
            waiter = asyncio.ensure_future(wanting(lock))
            waiter.set_name("waiter")
            await asyncio.sleep(0.01)
            snapshot = await taken()
        go_on.set()
        await asyncio.gather(holder, waiter)

        told = named(snapshot, "waiter")
        context = span.get_span_context()
        assert told.trace_id == f"{context.trace_id:032x}"
        assert told.span_id == f"{context.span_id:016x}"
        assert told.loop is not None
        assert told.age_s is not None
        assert told.wait is not None
        assert told.wait.kind == "lock"
        assert told.wait.target_name.startswith(f"{__name__}:")
        (live,) = (each for each in snapshot.locks if each.id == id(lock))
        assert (live.is_locked, live.holders, live.waiting) == (True, (id(holder),), (id(waiter),))
        assert live.held_s is not None
        (found,) = (each for each in snapshot.queues if each.id == id(queue))
        assert (found.size, found.limit, found.name) == (0, 7, live.name)
        (loop,) = snapshot.loops
        assert (loop.id, loop.thread_ident) == (told.loop, threading.get_ident())
        assert loop.tasks == 3
        is_eager = asyncio.get_running_loop().get_task_factory() is not None
        if snapshot.probe != "pure" and not is_eager:  # its first step is over before anybody knows it
            assert told.steps == 1
            assert told.wait.is_exact
            assert told.wait.for_s is not None
            assert told.wait.for_s >= 0.005
        assert snapshot.troubles == ()

    run(loop_factory, main())


def test_executors_are_in_it(instrumented: TracerProvider) -> None:
    go_on = threading.Event()
    with ThreadPoolExecutor(2, thread_name_prefix="busy") as pool:
        pool.submit(go_on.wait)
        snapshot = take()
        go_on.set()
    (executor,) = (each for each in snapshot.executors if each.name == "busy")
    assert (executor.kind, executor.active, executor.limit, executor.queued) == ("thread", 1, 2, 0)


def test_nothing_is_asked_of_those_that_are_gone() -> None:
    snapshot = take()
    assert (snapshot.probe, snapshot.executors, snapshot.loops) == ("", (), ())
