"""What the span of a request says of its tasks' time, beside what the tasks have measured themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from otel_concurrency.instrumentors import tasks, work
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.instrumentors.threads import ConcurrencyThreadingInstrumentor
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

TASKS = "concurrency.task.count"
BUSY = "concurrency.busy_time"
SCHEDULED = "concurrency.scheduled_time"
SLOW = "concurrency.slow_steps"
EXECUTOR = "concurrency.wait.executor"

OPTIONS = ({}, {"task_spans": "all"}, {"task_spans": "none"}, {"task_span_exclude": ["*"]})
SIDE_BY_SIDE = 4


class Requests:
    """A provider, and per request what was measured inside its steps and around it, in seconds."""

    def __init__(self, native: bool, options: Mapping[str, Any]) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.instrumentor = AsyncioTaskInstrumentor()
        self.instrumentor.instrument(native=native, tracer_provider=self.provider, **options)
        self.inside: dict[str, float] = {}
        self.around: dict[str, float] = {}

    def spin(self, *names: str, seconds: float = 0.003) -> None:
        """Compute, inside a step, for requests of these names."""
        began = now = time.perf_counter()
        while now - began < seconds:
            now = time.perf_counter()
        for name in names:
            self.inside[name] = self.inside.get(name, 0.0) + now - began

    @contextmanager
    def request(self, name: str, kind: SpanKind = SpanKind.SERVER) -> Iterator[None]:
        began = time.perf_counter()
        with self.tracer.start_as_current_span(name, kind=kind):
            yield
        self.around[name] = time.perf_counter() - began

    def said(self) -> dict[str, dict[str, Any]]:
        """Return of each request what its span says, `concurrency.*` alone."""
        return {
            span.name: {
                key: value for key, value in (span.attributes or {}).items() if key.startswith("concurrency.")
            }
            for span in self.exporter.get_finished_spans()
            if span.kind in (SpanKind.SERVER, SpanKind.CONSUMER)
        }

    def check(self, name: str, tasks: int) -> dict[str, Any]:
        """Hold what a span says against what was measured: steps are in between."""
        said = self.said()[name]
        assert said[TASKS] == tasks
        assert self.inside[name] <= said[BUSY] <= self.around[name]
        return said


@pytest.fixture(params=OPTIONS, ids=["lazy", "all", "none", "exclude"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def native(request: pytest.FixtureRequest) -> bool:
    if request.param:
        pytest.importorskip("otel_concurrency.probes._native", reason="not built here", exc_type=ImportError)
    return bool(request.param)


@pytest.fixture
def requests(options: dict[str, Any]) -> Iterator[Requests]:
    pytest.importorskip("otel_concurrency.probes._native", reason="not built here", exc_type=ImportError)
    made = Requests(True, options)
    yield made
    made.instrumentor.uninstrument()


@pytest.fixture
def plain(native: bool) -> Iterator[Requests]:
    made = Requests(native, {})
    yield made
    made.instrumentor.uninstrument()


async def pieces(requests: Requests, *names: str) -> None:
    requests.spin(*names)
    await asyncio.sleep(0)
    requests.spin(*names)


def test_steps_of_the_request_and_of_its_tasks(requests: Requests, loop_factory: LoopFactory) -> None:
    async def handle() -> None:
        requests.spin()  # before it begins, in the same step
        with requests.request("GET"):
            requests.spin("GET")
            await asyncio.gather(*(pieces(requests, "GET") for _ in range(3)))
            with requests.tracer.start_as_current_span("inner"):
                await asyncio.create_task(pieces(requests, "GET"))
            requests.spin("GET")
        requests.spin()  # after its end

    run(loop_factory, handle())
    assert SLOW not in requests.check("GET", 4)


def test_a_task_of_a_task_belongs_to_the_request(requests: Requests, loop_factory: LoopFactory) -> None:
    async def deep(left: int) -> None:
        requests.spin("GET")
        if left:
            await asyncio.create_task(deep(left - 1))

    async def handle() -> None:
        with requests.request("GET", SpanKind.CONSUMER):
            await deep(3)

    run(loop_factory, handle())
    requests.check("GET", 3)


def test_one_task_serves_one_request_after_the_other(requests: Requests, loop_factory: LoopFactory) -> None:
    names = ("first", "second", "third")

    async def connection() -> None:
        for name in names:
            requests.spin(seconds=0.01)  # between requests
            with requests.request(name):
                requests.spin(name)
                await asyncio.sleep(0)
                await asyncio.create_task(pieces(requests, name))

    run(loop_factory, connection())
    for name in names:
        requests.check(name, 1)


def test_requests_side_by_side_share_nothing(requests: Requests, loop_factory: LoopFactory) -> None:
    async def handle(name: str) -> None:
        with requests.request(name):
            for _ in range(3):
                requests.spin(name)
                await asyncio.create_task(pieces(requests, name))

    async def serve() -> None:
        await asyncio.gather(*(handle(str(number)) for number in range(SIDE_BY_SIDE)))

    began = time.perf_counter()
    run(loop_factory, serve())
    took = time.perf_counter() - began
    said = [requests.check(str(number), 3) for number in range(SIDE_BY_SIDE)]
    assert sum(each[BUSY] for each in said) <= took


def test_a_request_inside_a_request_counts_for_both(requests: Requests, loop_factory: LoopFactory) -> None:
    async def handle() -> None:
        with requests.request("outer"):
            requests.spin("outer")
            await pieces(requests, "outer")
            with requests.request("inner"):
                requests.spin("outer", "inner")
                await asyncio.create_task(pieces(requests, "outer", "inner"))
                await asyncio.sleep(0)
            await asyncio.create_task(pieces(requests, "outer"))

    run(loop_factory, handle())
    requests.check("inner", 1)
    requests.check("outer", 2)


def test_spans_that_end_in_another_order(requests: Requests, loop_factory: LoopFactory) -> None:
    async def handle() -> None:
        start, server = requests.tracer.start_span, SpanKind.SERVER
        spans = [start(name, kind=server) for name in ("one", "two", "three")]
        requests.spin("one", "two", "three")
        spans[0].end()
        await asyncio.sleep(0)
        requests.spin("three")
        spans[2].end()
        await asyncio.sleep(0)
        spans[1].end()
        with requests.request("later"):
            await pieces(requests, "later")

    run(loop_factory, handle())
    requests.check("later", 0)
    said = requests.said()
    # Those of one task without a span around: the newest that is open has its steps.
    assert said["three"][BUSY] >= requests.inside["three"]


def test_a_step_inside_a_step_counts_once(requests: Requests, loop_factory: LoopFactory) -> None:
    """On a loop with eager tasks; on others there is none."""

    async def deep(left: int) -> None:
        requests.spin("GET")
        if left:
            task = asyncio.create_task(deep(left - 1))
            requests.spin("GET")
            await task

    async def handle() -> None:
        await asyncio.sleep(0)
        with requests.request("GET"):
            await deep(0)
            await asyncio.gather(*(deep(2) for _ in range(3)))

    run(loop_factory, handle())
    requests.check("GET", 9)


def test_requests_that_begin_and_end_in_one_step(requests: Requests, loop_factory: LoopFactory) -> None:
    async def handle(name: str) -> None:
        requests.spin()
        with requests.request(name):
            requests.spin(name)
            task = asyncio.create_task(pieces(requests))
        requests.spin()
        await task

    async def serve() -> None:
        await asyncio.gather(*(handle(str(number)) for number in range(3)))

    run(loop_factory, serve())
    for number in range(3):
        requests.check(str(number), 1)


def test_what_tasks_wait_to_start(requests: Requests) -> None:
    ends: list[float] = []
    made: list[float] = []
    starts: list[float] = []
    before: list[float] = []

    async def child() -> None:
        starts.append(time.perf_counter())
        requests.spin()
        ends.append(time.perf_counter())

    async def handle() -> None:
        with requests.request("GET"):
            created = []
            for _ in range(3):
                before.append(time.perf_counter())
                created.append(asyncio.create_task(child()))
                made.append(time.perf_counter())
            await asyncio.gather(*created)

    run(asyncio.new_event_loop, handle())
    at_most = sum(start - since for start, since in zip(starts, before, strict=True))
    # Each begins after the one before it has ended, and that is after all were made.
    at_least = sum(end - since for end, since in zip(ends, made[1:], strict=False))
    assert at_least <= requests.said()["GET"][SCHEDULED] <= at_most


def test_what_work_items_wait_for_a_worker(plain: Requests, native: bool) -> None:
    threads = ConcurrencyThreadingInstrumentor()
    threads.instrument(native=native)
    joined = work.join({"native": native})
    try:

        async def handle() -> None:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(1) as pool, plain.request("GET"):
                await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 0.002) for _ in range(4)))

        run(asyncio.new_event_loop, handle())
        queue_times = [row.queue_times for row in joined.probe.read() if row.queue_times.count]
    finally:
        joined.leave()
        threads.uninstrument()
    assert [times.count for times in queue_times] == [4]
    assert plain.said()["GET"][EXECUTOR] == queue_times[0].sum_ns / 1e9


def test_what_tasks_wait_for_locks(plain: Requests, native: bool, loop_factory: LoopFactory) -> None:
    """A task that holds it, then two of the request's, then the one in which that began."""
    waited = 0.0

    async def hold(lock: asyncio.Lock) -> None:
        nonlocal waited
        began = time.perf_counter()
        await lock.acquire()
        waited += time.perf_counter() - began
        await asyncio.sleep(0.01)
        lock.release()

    async def handle() -> None:
        lock, free = asyncio.Lock(), asyncio.Lock()
        first = asyncio.ensure_future(hold(lock))
        await asyncio.sleep(0)
        with plain.request("GET"):
            async with free:
                held = [asyncio.ensure_future(hold(lock)) for _ in range(2)]
                await asyncio.sleep(0)
            await hold(lock)
            await asyncio.gather(first, *held)
        with plain.request("nothing"):
            await hold(lock)

    run(loop_factory, handle())
    told = plain.said()["GET"]["concurrency.wait.lock"]
    assert told <= waited
    assert told >= 0.9 * waited
    assert "concurrency.wait.lock" not in plain.said()["nothing"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_the_task_of_a_request_waits_for_locks_of_anyio(
    plain: Requests, native: bool, backend: str
) -> None:
    """Somebody holds the lock for 20 ms, and then the place that a limiter has."""
    waited = 0.0

    async def handle() -> None:
        lock, limiter = anyio.Lock(), anyio.CapacityLimiter(1)

        async def hold(one: Any) -> None:
            async with one:
                while not one.statistics().tasks_waiting:
                    await anyio.lowlevel.checkpoint()
                await anyio.sleep(0.02)

        async def wait_for(one: Any) -> None:
            nonlocal waited
            began = time.perf_counter()
            async with one:
                waited += time.perf_counter() - began

        async with anyio.create_task_group() as group:
            group.start_soon(hold, lock)
            while not lock.locked():
                await anyio.lowlevel.checkpoint()
            with plain.request("GET"):
                await wait_for(lock)
                group.start_soon(hold, limiter)
                while not limiter.borrowed_tokens:
                    await anyio.lowlevel.checkpoint()
                await wait_for(limiter)
                # From CPython 3.14 on, the end of a wait is told at the end of the next step.
                await anyio.lowlevel.checkpoint()
            with plain.request("nothing"):
                async with lock, limiter:
                    pass

    anyio.run(handle, backend=backend)
    told = plain.said()["GET"]["concurrency.wait.lock"]
    assert 0.04 <= told <= waited
    assert "concurrency.wait.lock" not in plain.said()["nothing"]


def test_slow_steps_are_told(requests: Requests) -> None:
    async def handle() -> None:
        with requests.request("GET"):
            await asyncio.create_task(pieces(requests, "GET"))

    tasks.note_slow_steps(1_000_000)
    try:
        run(asyncio.new_event_loop, handle())
    finally:
        tasks.note_slow_steps(0)
    # Both steps of the task; on a busy machine those of the request itself may be, too.
    assert 2 <= requests.check("GET", 1)[SLOW] <= 4


def test_the_step_in_which_a_request_ends_is_one_of_its_steps(
    requests: Requests, loop_factory: LoopFactory
) -> None:
    async def blocks() -> None:
        with requests.request("blocks"):
            requests.spin("blocks", seconds=0.06)

    async def begins_late() -> None:
        requests.spin(seconds=0.06)
        with requests.request("begins late"):
            pass
        requests.spin(seconds=0.06)

    async def goes_on() -> None:
        requests.spin(seconds=0.06)
        with requests.request("goes on"):
            await asyncio.sleep(0)

    async def handle() -> None:
        await asyncio.gather(blocks(), begins_late(), goes_on())

    tasks.note_slow_steps(50_000_000)
    try:
        run(loop_factory, handle())
    finally:
        tasks.note_slow_steps(0)
    said = requests.said()
    assert said["blocks"][SLOW] == 1
    for name in (
        "begins late",
        "goes on",
    ):  # only a machine that is held up makes the rest of those steps slow
        assert SLOW not in said[name] or requests.around[name] >= 0.05


def test_without_steps_there_is_the_number_of_tasks_alone(plain: Requests, native: bool) -> None:
    async def handle() -> None:
        with plain.request("GET"):
            await asyncio.gather(*(pieces(plain) for _ in range(3)))

    run(asyncio.new_event_loop, handle())
    expected = {TASKS, BUSY, SCHEDULED} if native else {TASKS}
    assert plain.said()["GET"].keys() == expected
    assert plain.said()["GET"][TASKS] == 3


def test_it_can_be_switched_off(native: bool) -> None:
    off = Requests(native, {"request_times": False})

    async def handle() -> None:
        with off.request("GET"):
            await pieces(off)

    try:
        run(asyncio.new_event_loop, handle())
    finally:
        off.instrumentor.uninstrument()
    assert off.said() == {"GET": {}}


def test_a_span_of_another_kind_says_nothing(plain: Requests) -> None:
    async def handle() -> None:
        with plain.tracer.start_as_current_span("client", kind=SpanKind.CLIENT):
            await asyncio.create_task(pieces(plain))

    run(asyncio.new_event_loop, handle())
    assert [dict(span.attributes or {}) for span in plain.exporter.get_finished_spans()] == [{}]


def test_a_full_span_keeps_what_is_the_applications(plain: Requests) -> None:
    async def handle() -> None:
        span: Any = plain.tracer.start_span("GET", kind=SpanKind.SERVER)
        for number in range(200):
            span.set_attribute(f"mine.{number}", number)
        span.end()

    run(asyncio.new_event_loop, handle())
    (span,) = plain.exporter.get_finished_spans()
    assert all(key.startswith("mine.") for key in span.attributes or {})


def test_trio_counts_the_same() -> None:
    pytest.importorskip("otel_concurrency.probes._native", reason="not built here", exc_type=ImportError)
    trio: Any = pytest.importorskip("trio")
    requests = Requests(True, {})

    async def child() -> None:
        requests.spin("GET")
        await trio.lowlevel.checkpoint()
        requests.spin("GET")

    async def handle() -> None:
        requests.spin()
        with requests.request("GET"):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(child)
            requests.spin("GET")
        requests.spin()

    try:
        trio.run(handle)
    finally:
        requests.instrumentor.uninstrument()
    assert SCHEDULED in requests.check("GET", 3)
