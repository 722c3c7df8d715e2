"""Tasks that outlive the request they were created in, by fake time: which trace they are in, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import StatusCode

from otel_concurrency.instrumentors import tasks
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.signals import continued_tasks
from otel_concurrency.signals.task_spans import TaskSpans
from tests.loops import run

NS = 1_000_000_000
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class House:
    """A clock that is put on, a provider, and what it has exported."""

    def __init__(self, native: bool, sampler: Sampler = ALWAYS_ON) -> None:
        self.now_ns = self.began_ns = time.time_ns()
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=ParentBased(sampler), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.instrumentor = AsyncioTaskInstrumentor()
        self.instrumentor.instrument(native=native, tracer_provider=self.provider)
        self.detach(after_s=30)

    def detach(self, *, after_s: int) -> None:
        # Whether a task was slow is a question of real time, so: all are.
        maker = TaskSpans(
            threshold_ns=0, detach_after_ns=after_s * NS, tracer_provider=self.provider, clock=self.clock
        )
        probe: Any = tasks._probe
        probe.tell_spans(maker.begin, maker.plan())

    def clock(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * NS)

    def span(self, name: str) -> trace.Span:
        return self.tracer.start_span(name, start_time=self.now_ns)

    def touch(self, name: str) -> None:
        """Make a span that begins and ends now."""
        self.span(name).end(self.now_ns)

    async def requested(self, *created: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
        """Create tasks in a request that takes 0.2 s and is over then."""
        request = self.span("request")
        with trace.use_span(request):
            made = [asyncio.get_running_loop().create_task(each) for each in created]
            await asyncio.sleep(0)
        self.pass_s(0.2)
        request.end(self.now_ns)
        return made

    def all(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def traces(self) -> list[list[tuple[str, str | None]]]:
        """Return of each trace, the oldest first, each span and its parent; an orphan's parent is `?`."""
        names = {span.context.span_id: short(span) for span in self.all()}
        traces: dict[int, list[tuple[str, str | None]]] = {}
        for span in self.all():
            parent = span.parent
            up = None if parent is None else names.get(parent.span_id, "?")
            assert parent is None or parent.trace_id == span.context.trace_id
            traces.setdefault(span.context.trace_id, []).append((short(span), up))
        return list(traces.values())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if short(span) == name]

    def seconds(self, span: ReadableSpan) -> tuple[float, float]:
        assert span.start_time is not None
        assert span.end_time is not None
        return (
            round((span.start_time - self.began_ns) / NS, 1),
            round((span.end_time - self.began_ns) / NS, 1),
        )


def short(span: ReadableSpan) -> str:
    return span.name.rpartition(".")[2]


def outcome(span: ReadableSpan) -> Any:
    return (span.attributes or {})["asyncio.task.outcome"]


def linked(span: ReadableSpan) -> list[trace.SpanContext]:
    return [link.context for link in span.links]


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def make_house(native: bool) -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def make(sampler: Sampler = ALWAYS_ON) -> House:
        houses.append(House(native, sampler))
        return houses[-1]

    yield make
    for house in houses:
        house.instrumentor.uninstrument()
        house.provider.shutdown()


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()


async def polls(orders: asyncio.Queue[str]) -> None:
    """Have a worker poll, and wait until it has."""
    await orders.put("poll")
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def works(house: House, orders: asyncio.Queue[str]) -> None:
    while (order := await orders.get()) != "end":
        if order == "fail":
            raise ConnectionError("gone")
        house.touch(order)


def test_a_worker_of_ten_minutes_goes_on_in_a_trace_of_its_own(
    house: House, loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(works(house, orders))
        for _ in range(60):
            house.pass_s(10)
            await polls(orders)
        await orders.put("end")
        await worker

    run(loop_factory, main())
    assert house.traces() == [
        [("works", "request"), ("request", None), ("poll", "works"), ("poll", "works")]
        if house.all()[0].name != "request"
        else [("request", None), ("works", "request"), ("poll", "works"), ("poll", "works")],
        [("works", None)] + [("poll", "works")] * 58,
    ]
    first, then = house.named("works")
    assert [house.seconds(span) for span in (first, then)] == [(0, 20.2), (20.2, 600.2)]
    assert [outcome(span) for span in (first, then)] == ["detached", "finished"]
    assert linked(first) == [then.context]
    assert linked(then) == [first.context]


def test_of_a_silent_worker_the_request_keeps_its_length(house: House, loop_factory: LoopFactory) -> None:
    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(works(house, orders))
        house.pass_s(600)
        await orders.put("end")
        await worker

    run(loop_factory, main())
    first, then = house.named("works")
    (request,) = house.named("request")
    assert house.seconds(request) == house.seconds(first) == (0, 0.2)
    assert house.seconds(then) == (0.2, 600.2)
    assert (linked(first), linked(then)) == ([then.context], [first.context])
    assert then.parent is None


def test_a_task_that_ends_soon_after_the_request_stays_in_its_trace(
    house: House, loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(works(house, orders))
        house.pass_s(29)
        for order in ("poll", "end"):
            await orders.put(order)
        await worker

    run(loop_factory, main())
    assert len(house.traces()) == 1
    (only,) = house.named("works")
    assert (outcome(only), linked(only)) == ("finished", [])


def test_it_is_the_local_root_that_counts(house: House, loop_factory: LoopFactory) -> None:
    """The span in which the worker was created has ended long ago; its request goes on."""

    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        with trace.use_span(house.span("request")) as root:
            with trace.use_span(house.span("inner")) as inner:
                worker = asyncio.get_running_loop().create_task(works(house, orders))
                await asyncio.sleep(0)
            inner.end(house.now_ns)
            house.pass_s(100)
            await polls(orders)
            root.end(house.now_ns)
        house.pass_s(29)
        await polls(orders)
        house.pass_s(2)
        await orders.put("late")
        await orders.put("end")
        await worker

    run(loop_factory, main())
    assert [sorted(names) for names in house.traces()] == [
        sorted([("request", None), ("inner", "request"), ("works", "inner"), *[("poll", "works")] * 2]),
        [("late", "works"), ("works", None)],
    ]
    assert [house.seconds(span) for span in house.named("works")] == [(0, 129), (129, 131)]


def test_a_task_of_a_detached_task_goes_along(house: House, loop_factory: LoopFactory) -> None:
    """Those that it had before, and those that it creates later; whoever is asked first."""

    async def outer(early: asyncio.Queue[str], orders: asyncio.Queue[str]) -> None:
        inner = asyncio.get_running_loop().create_task(works(house, early))
        await works(house, orders)
        await asyncio.get_running_loop().create_task(later())
        await inner

    async def later() -> None:
        house.touch("later's")

    async def main() -> None:
        early: asyncio.Queue[str] = asyncio.Queue()
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(outer(early, orders))
        await asyncio.sleep(0)
        await early.put("early's")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        house.pass_s(31)
        for queue, order in ((early, "now"), (early, "end"), (orders, "end")):
            await queue.put(order)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await worker

    run(loop_factory, main())
    assert [sorted(names, key=str) for names in house.traces()] == [
        sorted([("request", None), ("outer", "request"), ("works", "outer"), ("early's", "works")], key=str),
        sorted(
            [
                *[("outer", None), ("works", "outer"), ("now", "works")],
                *[("later", "outer"), ("later's", "later")],
            ],
            key=str,
        ),
    ]


def test_what_an_overdue_task_creates_is_not_in_the_request_s_trace(
    house: House, loop_factory: LoopFactory
) -> None:
    """It has been silent for ten minutes: nobody has asked, and it is still in the request's trace."""

    async def silent(is_over: asyncio.Event) -> None:
        await is_over.wait()
        await asyncio.get_running_loop().create_task(polls())

    async def polls() -> None:
        house.touch("poll")

    async def main() -> None:
        is_over = asyncio.Event()
        (worker,) = await house.requested(silent(is_over))
        house.pass_s(600)
        is_over.set()
        await worker

    run(loop_factory, main())
    assert [sorted(names, key=str) for names in house.traces()] == [
        [("request", None), ("silent", "request")],
        [("poll", "polls"), ("polls", "silent"), ("silent", None)],
    ]


def test_a_failure_is_told_where_the_task_went_on(house: House, loop_factory: LoopFactory) -> None:
    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(works(house, orders))
        house.pass_s(31)
        for order in ("poll", "fail"):
            await orders.put(order)
        await asyncio.wait([worker])
        assert isinstance(worker.exception(), ConnectionError)

    run(loop_factory, main())
    first, then = house.named("works")
    assert (first.status.status_code, outcome(first)) == (StatusCode.UNSET, "detached")
    assert (then.status.status_code, outcome(then)) == (StatusCode.ERROR, "failed")
    assert [event.name for event in then.events] == ["exception"]


def test_what_a_detached_task_writes_is_on_the_span_it_goes_on_in(
    house: House, loop_factory: LoopFactory
) -> None:
    async def writes(is_over: asyncio.Event) -> None:
        await is_over.wait()
        house.pass_s(31)
        span = trace.get_current_span()
        span.get_span_context()
        span.set_attribute("mine", 1)
        assert span.is_recording()

    async def main() -> None:
        is_over = asyncio.Event()
        (task,) = await house.requested(writes(is_over))
        is_over.set()
        await task

    run(loop_factory, main())
    first, then = house.named("writes")
    assert (first.attributes or {}).get("mine") is None
    assert (then.attributes or {}).get("mine") == 1


def test_after_its_end_what_it_left_behind_is_in_the_trace_it_went_on_in(
    house: House, loop_factory: LoopFactory
) -> None:
    async def leaves(is_over: asyncio.Event, done: asyncio.Event) -> None:
        await is_over.wait()
        house.pass_s(31)
        house.touch("poll")
        asyncio.get_running_loop().call_soon(lambda: (house.touch("left"), done.set()))

    async def main() -> None:
        is_over, done = asyncio.Event(), asyncio.Event()
        await house.requested(leaves(is_over, done))
        is_over.set()
        await done.wait()

    run(loop_factory, main())
    assert [sorted(names, key=str) for names in house.traces()][1] == [
        ("leaves", None),
        ("left", "leaves"),
        ("poll", "leaves"),
    ]


def test_a_processor_may_ask_while_the_task_goes_on(house: House, loop_factory: LoopFactory) -> None:
    asked: list[trace.SpanContext] = []

    class Asks(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            asked.append(trace.get_current_span().get_span_context())

    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(works(house, orders))
        house.pass_s(31)
        for order in ("poll", "end"):
            await orders.put(order)
        await worker

    house.provider.add_span_processor(Asks())
    run(loop_factory, main())
    first, then = house.named("works")
    assert [ids for ids in asked if ids.is_valid] == [first.context] * 2 + [then.context]


def test_where_the_sampler_wants_no_new_trace_there_is_none(
    make_house: Callable[..., House], loop_factory: LoopFactory
) -> None:
    """The request was sampled elsewhere; what goes on is asked for anew, with all below it."""
    house = make_house(ALWAYS_OFF)
    remote = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(1)))

    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        with trace.use_span(remote):
            (worker,) = await house.requested(works(house, orders))
        house.pass_s(31)
        for order in ("poll", "end"):
            await orders.put(order)
        await worker

    run(loop_factory, main())
    assert sorted(short(span) for span in house.all()) == ["request", "works"]
    (first,) = house.named("works")
    assert (outcome(first), linked(first)) == ("detached", [])


def test_a_trace_that_goes_on_for_too_long_is_followed_by_another(
    house: House, loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continued_tasks, "MAX_TRACE_NS", 100 * NS)

    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(works(house, orders))
        for _ in range(7):
            house.pass_s(40)
            await polls(orders)
        await orders.put("end")
        await worker

    run(loop_factory, main())
    first, second, third, fourth = house.named("works")
    assert [linked(span) for span in (first, second, third, fourth)] == [
        [second.context],
        [first.context, third.context],
        [second.context, fourth.context],
        [third.context],
    ]
    assert [outcome(span) for span in (first, second, third, fourth)] == [*["detached"] * 3, "finished"]
    assert [len(each) for each in house.traces()] == [2, 3, 4, 3]


def test_with_zero_a_task_stays_as_long_as_it_wants(house: House, loop_factory: LoopFactory) -> None:
    house.detach(after_s=0)

    async def main() -> None:
        orders: asyncio.Queue[str] = asyncio.Queue()
        (worker,) = await house.requested(works(house, orders))
        house.pass_s(600)
        for order in ("poll", "end"):
            await orders.put(order)
        await worker

    run(loop_factory, main())
    assert len(house.traces()) == 1
