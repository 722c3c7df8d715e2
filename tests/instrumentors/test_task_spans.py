"""Spans of tasks: which there are, where they hang, and what an application sees of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, StatusCode

from otel_concurrency.instrumentors import tasks
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.signals.spans import IdentitySpanProcessor
from otel_concurrency.signals.task_spans import TaskSpans
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Main = Callable[[], Coroutine[Any, Any, Any]]
HERE = __name__
THRESHOLD_S, SLOW_S = 0.2, 0.21  # a machine that has much to do holds a quick task for a tenth of a second

tracer: trace.Tracer


class Spans:
    """What was exported, by name."""

    def __init__(self, exporter: InMemorySpanExporter, provider: TracerProvider) -> None:
        self._exporter = exporter
        self.provider = provider

    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def names(self) -> list[str]:
        return sorted(short(span) for span in self.all())

    def one(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all() if short(span) == name]
        return span

    def tree(self) -> dict[str, str | None]:
        """Return each span's name and the name of its parent; an orphan's is `?`."""
        by_id = {span.context.span_id: span for span in self.all()}
        assert len({span.context.trace_id for span in self.all()}) == 1
        return {
            short(span): None
            if span.parent is None
            else short(by_id[span.parent.span_id])
            if span.parent.span_id in by_id
            else "?"
            for span in self.all()
        }


def short(span: ReadableSpan) -> str:
    return span.name.removeprefix(f"asyncio.task {HERE}.")


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def spans() -> Iterator[Spans]:
    global tracer
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    yield Spans(exporter, provider)
    provider.shutdown()


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def instrument(native: bool, spans: Spans) -> Iterator[Callable[..., AsyncioTaskInstrumentor]]:
    instrumentor = AsyncioTaskInstrumentor()

    def instrument(**options: Any) -> AsyncioTaskInstrumentor:
        instrumentor.instrument(native=native, tracer_provider=spans.provider, **options)
        return instrumentor

    yield instrument
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def request(loop_factory: LoopFactory, main: Main) -> Any:
    """Run a coroutine function, and what it creates, inside a span."""

    async def serve() -> Any:
        with tracer.start_as_current_span("request"):
            return await main()

    return run(loop_factory, serve())


async def quick() -> None:
    await asyncio.sleep(0)


async def slow() -> None:
    await asyncio.sleep(SLOW_S)


async def fails() -> None:
    await asyncio.sleep(0)
    raise ConnectionError("gone")


async def queries() -> None:
    await asyncio.sleep(0)
    with tracer.start_as_current_span("SELECT"):
        await asyncio.sleep(0)


async def waits() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.usefixtures("instrument")
class TestLazy:
    """With a threshold of `THRESHOLD_S`."""

    @pytest.fixture(autouse=True)
    def _instrumented(self, instrument: Callable[..., AsyncioTaskInstrumentor]) -> None:
        instrument(task_span_threshold=THRESHOLD_S)

    def test_of_twenty_tasks_those_that_tell_something_get_spans(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        async def main() -> None:
            await asyncio.gather(
                *(quick() for _ in range(17)), slow(), fails(), queries(), return_exceptions=True
            )

        request(loop_factory, main)
        assert spans.tree() == {
            "request": None,
            "slow": "request",
            "fails": "request",
            "queries": "request",
            "SELECT": "queries",
        }

    def test_a_span_says_what_the_task_was(
        self, native: bool, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        async def main() -> None:
            await asyncio.get_running_loop().create_task(slow(), name="the slow one")

        request(loop_factory, main)
        span = spans.one("slow")
        found = attributes(span)
        code = slow.__code__
        busy_s, delay_s = (
            found.pop("asyncio.task.busy.time", None),
            found.pop("asyncio.task.start.delay", None),
        )
        assert found == {
            "code.function.name": f"{HERE}.slow",
            "code.file.path": code.co_filename,
            "code.line.number": code.co_firstlineno,
            "asyncio.task.name": "the slow one",
            "asyncio.task.outcome": "finished",
            **({"asyncio.task.steps": 2} if native else {}),
        }
        if native:
            assert 0 < busy_s < THRESHOLD_S
            assert 0 <= delay_s < THRESHOLD_S
        assert span.start_time is not None
        assert span.end_time is not None
        parent = spans.one("request")
        assert parent.start_time is not None
        assert parent.end_time is not None
        assert parent.start_time <= span.start_time
        assert span.end_time <= parent.end_time
        assert span.end_time - span.start_time >= THRESHOLD_S * 1e9
        assert span.status.status_code is StatusCode.UNSET
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "otel_concurrency"

    def test_a_failure_is_told_with_its_exception(self, spans: Spans, loop_factory: LoopFactory) -> None:
        async def main() -> None:
            await asyncio.gather(fails(), return_exceptions=True)

        request(loop_factory, main)
        span = spans.one("fails")
        assert attributes(span)["asyncio.task.outcome"] == "failed"
        assert attributes(span)["error.type"] == "ConnectionError"
        assert (span.status.status_code, span.status.description) == (
            StatusCode.ERROR,
            "ConnectionError: gone",
        )
        (event,) = span.events
        assert event.name == "exception"
        assert event.attributes is not None
        assert "raise ConnectionError" in str(event.attributes["exception.stacktrace"])

    def test_a_cancelled_task_is_told_and_is_no_error(self, spans: Spans, loop_factory: LoopFactory) -> None:
        async def main() -> None:
            task = asyncio.get_running_loop().create_task(waits())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        request(loop_factory, main)
        span = spans.one("waits")
        assert attributes(span)["asyncio.task.outcome"] == "cancelled"
        assert span.status.status_code is StatusCode.UNSET

    def test_nested_tasks_hang_where_they_were_created(self, spans: Spans, loop_factory: LoopFactory) -> None:
        async def outer() -> None:
            await asyncio.gather(middle(), quick())

        async def middle() -> None:
            await asyncio.gather(queries(), quick())

        request(loop_factory, outer)
        prefix = f"{self.test_nested_tasks_hang_where_they_were_created.__qualname__}.<locals>"
        assert spans.tree() == {
            "request": None,
            f"{prefix}.middle": "request",
            "queries": f"{prefix}.middle",
            "SELECT": "queries",
        }

    def test_what_a_task_left_behind_belongs_to_whoever_is_still_there(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        """The task in between ended without a span, so the later child goes to the request."""
        left: list[asyncio.Future[None]] = []

        async def leaves() -> None:
            left.append(asyncio.get_running_loop().create_task(later()))

        async def later() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await queries()

        async def main() -> None:
            await asyncio.gather(leaves())
            await left[0]

        request(loop_factory, main)
        assert [span.rpartition(".")[2] for span in spans.tree()] == ["SELECT", "later", "request"]
        assert list(spans.tree().values())[1:] == ["request", None]

    def test_a_header_takes_the_id(self, spans: Spans, loop_factory: LoopFactory) -> None:
        headers: dict[str, str] = {}

        async def calls() -> None:
            propagate.inject(headers)

        async def main() -> None:
            await asyncio.gather(calls(), quick())

        request(loop_factory, main)
        (span,) = [span for span in spans.all() if span.name.endswith(".calls")]
        context = span.context
        assert headers["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")

    def test_a_log_record_takes_the_id(self, spans: Spans, loop_factory: LoopFactory) -> None:
        exporter = InMemoryLogRecordExporter()
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))

        async def logs() -> None:
            provider.get_logger("test").emit(body="hello")

        async def main() -> None:
            await asyncio.gather(logs(), quick())

        request(loop_factory, main)
        (span,) = [span for span in spans.all() if span.name.endswith(".logs")]
        (record,) = exporter.get_finished_logs()
        assert (record.log_record.trace_id, record.log_record.span_id) == (
            span.context.trace_id,
            span.context.span_id,
        )

    def test_metrics_take_no_id_and_lead_to_a_span_that_there_is(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        reader = InMemoryMetricReader()
        meters = MeterProvider([reader], shutdown_on_exit=False)
        counter = meters.get_meter("test").create_counter("orders")

        async def counts() -> None:
            counter.add(1)

        async def main() -> None:
            await asyncio.gather(counts())

        request(loop_factory, main)
        assert spans.names() == ["request"]
        data = reader.get_metrics_data()
        assert data is not None
        (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        (exemplar,) = point.exemplars
        assert exemplar.span_id == spans.one("request").context.span_id
        meters.shutdown()

    def test_our_own_exemplars_take_no_id(
        self, spans: Spans, reader: InMemoryMetricReader, loop_factory: LoopFactory
    ) -> None:
        async def main() -> None:
            await asyncio.gather(quick(), queries())
            reader.get_metrics_data()

        request(loop_factory, main)
        reader.get_metrics_data()
        assert spans.names() == ["SELECT", "queries", "request"]

    def test_writing_lands_on_the_span_around(self, spans: Spans, loop_factory: LoopFactory) -> None:
        async def writes() -> None:
            span = trace.get_current_span()
            span.set_attribute("a", 1)
            span.set_attributes({"b": 2})
            span.add_event("noted", {"c": 3})
            span.record_exception(KeyError("k"))
            span.set_status(StatusCode.ERROR, "so it is")
            span.update_name("renamed")
            assert span.is_recording()
            assert isinstance(span, ReadableSpan)
            assert span.name == "renamed"

        async def main() -> None:
            await asyncio.gather(writes())

        request(loop_factory, main)
        (span,) = spans.all()
        assert span.name == "renamed"
        assert attributes(span) == {"a": 1, "b": 2}
        assert [event.name for event in span.events] == ["noted", "exception"]
        assert span.status.status_code is StatusCode.ERROR

    def test_what_is_set_on_it_is_set_on_the_span_around(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        async def sets() -> None:
            span: Any = trace.get_current_span()
            span.mine, span.gone = 1, 2
            assert (span.mine, span.gone) == (1, 2)
            del span.gone

        async def main() -> Any:
            await asyncio.gather(sets())
            return trace.get_current_span()

        span = request(loop_factory, main)
        assert span.mine == 1
        assert not hasattr(span, "gone")

    def test_who_has_the_ids_sees_the_parent_that_goes_with_them(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        async def looks() -> tuple[Any, Any]:
            span: Any = trace.get_current_span()
            before = span.parent
            span.get_span_context()
            return before, span.parent

        async def main() -> tuple[Any, Any]:
            (seen,) = await asyncio.gather(looks())
            return seen

        before, after = request(loop_factory, main)
        assert before is None
        assert after == spans.one("request").context

    def test_the_creator_sees_its_own_span_again(self, spans: Spans, loop_factory: LoopFactory) -> None:
        async def main() -> tuple[Span, Span]:
            before = trace.get_current_span()
            task = asyncio.get_running_loop().create_task(quick())
            after = trace.get_current_span()
            await task
            return before, after

        before, after = request(loop_factory, main)
        assert before is after

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="create_task(context=) came with CPython 3.11")
    def test_a_context_that_was_handed_in_is_left_alone(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        seen: list[Span] = []

        async def looks() -> None:
            seen.append(trace.get_current_span())
            await asyncio.sleep(SLOW_S)

        async def main() -> Span:
            shared = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.create_task(looks(), context=shared) for _ in range(2)))
            seen.append(shared.run(trace.get_current_span))
            return trace.get_current_span()

        real = request(loop_factory, main)
        assert seen == [real, real, real]
        assert spans.names() == ["request"]

    def test_outside_of_a_recording_span_there_is_nothing(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        seen: list[Span] = []

        async def looks() -> None:
            seen.append(trace.get_current_span())
            await slow()

        async def main() -> None:
            await asyncio.gather(looks())
            remote = trace.NonRecordingSpan(
                trace.SpanContext(1, 2, True, trace.TraceFlags(trace.TraceFlags.SAMPLED))
            )
            with trace.use_span(remote):
                await asyncio.gather(looks())
            with tracer.start_as_current_span("over") as over:
                pass
            with trace.use_span(over):
                await asyncio.gather(looks())
            assert seen == [trace.INVALID_SPAN, remote, over]

        run(loop_factory, main())
        assert spans.names() == ["over"]

    def test_a_span_of_another_provider_is_left_alone(self, spans: Spans, loop_factory: LoopFactory) -> None:
        other = TracerProvider(shutdown_on_exit=False)

        async def main() -> None:
            with other.get_tracer("test").start_as_current_span("theirs") as theirs:
                task = asyncio.get_running_loop().create_task(looks())
                assert await task is theirs

        async def looks() -> Span:
            return trace.get_current_span()

        run(loop_factory, main())
        assert spans.names() == []

    def test_a_task_that_was_destroyed_keeps_its_promise(self, spans: Spans) -> None:
        async def promises() -> None:
            with tracer.start_as_current_span("SELECT"):
                pass
            await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.get_running_loop().create_task(promises())
            await asyncio.sleep(0)
            del task
            gc.collect()
            await asyncio.get_running_loop().create_task(quick())

        spans.provider.add_span_processor(IdentitySpanProcessor())
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        request(lambda: loop, main)
        assert [name.rpartition(".")[2] for name in spans.tree()] == ["SELECT", "promises", "request"]
        assert "?" not in spans.tree().values()
        (span,) = [span for span in spans.all() if span.name.endswith(".promises")]
        assert attributes(span)["asyncio.task.outcome"] == "destroyed"
        assert "asyncio.task.name" not in attributes(span)  # the task that runs when this is told

    def test_a_refused_task_leaves_the_span_as_it_was(self, spans: Spans, loop_factory: LoopFactory) -> None:
        closed = asyncio.new_event_loop()
        closed.close()

        async def main() -> None:
            before = trace.get_current_span()
            coroutine = quick()
            with pytest.raises(RuntimeError):
                closed.create_task(coroutine)  # noqa: RUF006
            coroutine.close()
            assert trace.get_current_span() is before

        request(loop_factory, main)
        assert spans.names() == ["request"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
    def test_a_forked_child_promises_nothing_of_its_parent(self, spans: Spans) -> None:
        """What the parent would never hear of belongs to the span around."""

        async def forks() -> int:
            reads, writes = os.pipe()
            pid = os.fork()
            if not pid:
                span_id = trace.get_current_span().get_span_context().span_id
                os.write(writes, span_id.to_bytes(8, "big"))
                os._exit(0)
            os.waitpid(pid, 0)  # noqa: ASYNC222
            return int.from_bytes(os.read(reads, 8), "big")

        async def main() -> int:
            (span_id,) = await asyncio.gather(forks())
            return span_id

        span_id = request(asyncio.new_event_loop, main)
        assert span_id == spans.one("request").context.span_id
        assert spans.names() == ["request"]

    def test_a_callback_after_the_end_of_its_task_makes_no_orphan(
        self, spans: Spans, loop_factory: LoopFactory
    ) -> None:
        async def keeps() -> contextvars.Context:
            return contextvars.copy_context()

        def calls(done: asyncio.Future[None]) -> None:
            with tracer.start_as_current_span("SELECT"):
                done.set_result(None)

        async def main() -> None:
            done = asyncio.get_running_loop().create_future()
            (context,) = await asyncio.gather(keeps())
            asyncio.get_running_loop().call_soon(calls, done, context=context)
            await done

        request(loop_factory, main)
        assert spans.tree() == {"request": None, "SELECT": "request"}

    def test_a_thread_of_a_task_has_its_spans_there(self, spans: Spans, loop_factory: LoopFactory) -> None:
        def reads() -> None:
            with tracer.start_as_current_span("SELECT"):
                pass

        async def in_a_thread() -> None:
            context = contextvars.copy_context()
            await asyncio.get_running_loop().run_in_executor(None, context.run, reads)

        async def main() -> None:
            await asyncio.gather(in_a_thread())

        request(loop_factory, main)
        assert [(name.rpartition(".")[2], parent) for name, parent in spans.tree().items()][1:] == [
            ("in_a_thread", "request"),
            ("request", None),
        ]

    def test_tasks_that_create_each_other_leave_no_chain(self, spans: Spans) -> None:
        """Else each would keep the one before alive, for as long as the program runs."""
        from otel_concurrency.signals.stand_in import StandIn

        def stand_ins() -> int:
            gc.collect()
            return sum(type(each) is StandIn for each in gc.get_objects())

        async def tick(left: int) -> None:
            if left:
                loop.create_task(tick(left - 1))  # noqa: RUF006
            else:
                done.set_result(stand_ins() - before)

        async def main() -> int:
            nonlocal done
            done = loop.create_future()
            loop.create_task(tick(300))  # noqa: RUF006
            return await done

        done: asyncio.Future[int]
        before = stand_ins()
        loop = asyncio.new_event_loop()
        assert request(lambda: loop, main) < 60  # those that exemplars lead to


STORIES: list[Main] = []


def story(main: Main) -> Main:
    STORIES.append(main)
    return main


@story
async def several_quick() -> None:
    await asyncio.gather(quick(), quick(), quick())


@story
async def each_kind() -> None:
    await asyncio.gather(quick(), fails(), queries(), return_exceptions=True)


@story
async def cancelled() -> None:
    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@story
async def destroyed() -> None:
    asyncio.create_task(waits())  # noqa: RUF006
    await asyncio.sleep(0)
    gc.collect()


@story
async def nested() -> None:
    await asyncio.create_task(several_quick())


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("main", STORIES, ids=lambda main: main.__name__)
def test_no_block_is_left(instrument: Callable[..., AsyncioTaskInstrumentor], main: Main) -> None:
    async def play() -> None:
        for _ in range(200):
            with tracer.start_as_current_span("request"):
                await main()

    def call() -> int:
        contextvars.Context().run(loop.run_until_complete, play())
        trace_spans.clear()
        probe.read_rows()
        gc.collect()
        return sys.getallocatedblocks()

    global tracer
    trace_spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(trace_spans))
    tracer = provider.get_tracer("test")
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    instrument()
    probe: Any = tasks._probe
    maker = TaskSpans(tracer_provider=provider)
    probe.tell_spans(maker.begin, maker.plan())
    gc.disable()
    try:
        for _ in range(6):  # until the buckets of all histograms are there
            call()
        readings = [call() for _ in range(4)]
    finally:
        gc.enable()
        loop.close()
        provider.shutdown()
    # A leak shows each time; what the interpreter keeps once for itself shows once.
    assert min(after - before for before, after in pairwise(readings)) < 50


def test_behind_a_base_http_middleware_attributes_land_on_the_server_span(
    spans: Spans, instrument: Callable[..., AsyncioTaskInstrumentor], loop_factory: LoopFactory
) -> None:
    """It runs the handler in a task of an AnyIO task group."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    class Passes(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    async def handler(request: Request) -> PlainTextResponse:
        trace.get_current_span().set_attribute("tenant", "a")
        return PlainTextResponse("ok")

    async def serve() -> None:
        sent = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await app(scope, receive, send)
        assert "http.response.start" in sent

    app = Starlette(routes=[Route("/", handler)], middleware=[Middleware(Passes)])
    instrument()
    request(loop_factory, serve)
    assert attributes(spans.one("request")) == {"tenant": "a"}
    assert spans.names() == ["request"]


def test_all_gives_each_task_a_span(
    spans: Spans, instrument: Callable[..., AsyncioTaskInstrumentor], loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        await asyncio.gather(quick(), queries())

    instrument(task_spans="all")
    request(loop_factory, main)
    assert spans.tree() == {"request": None, "quick": "request", "queries": "request", "SELECT": "queries"}


def test_none_gives_none(
    spans: Spans, instrument: Callable[..., AsyncioTaskInstrumentor], loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        await asyncio.gather(fails(), queries(), return_exceptions=True)

    instrument(task_spans="none")
    request(loop_factory, main)
    assert spans.tree() == {"request": None, "SELECT": "request"}


def test_globs_choose_the_functions(
    spans: Spans, instrument: Callable[..., AsyncioTaskInstrumentor], loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        await asyncio.gather(quick(), queries(), fails(), return_exceptions=True)

    instrument(
        task_spans="all", task_span_include=[f"{HERE}.q*", f"{HERE}.fails"], task_span_exclude=["*.quick"]
    )
    request(loop_factory, main)
    assert spans.tree() == {"request": None, "queries": "request", "fails": "request", "SELECT": "queries"}


def test_uninstrumented_it_promises_nothing_new(
    spans: Spans, instrument: Callable[..., AsyncioTaskInstrumentor], loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        await asyncio.gather(fails(), return_exceptions=True)

    instrument().uninstrument()
    request(loop_factory, main)
    assert spans.names() == ["request"]


def test_what_fails_here_stays_here(
    spans: Spans,
    instrument: Callable[..., AsyncioTaskInstrumentor],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lazy_loop_factory: LoopFactory,
) -> None:
    from otel_concurrency.signals import task_spans

    async def main() -> str:
        await asyncio.gather(fails(), quick(), return_exceptions=True)
        return "done"

    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(task_spans, "task_attributes", breaks)
    instrument()
    with caplog.at_level(logging.ERROR):
        assert request(lazy_loop_factory, main) == "done"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert spans.names() == ["request"]
