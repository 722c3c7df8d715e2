"""Failures noted, told and counted in one process; what is not ours stays as it is."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.test.globals_test import reset_logging_globals

from otel_concurrency.hooks.failures.failures import FAILURES
from otel_concurrency.hooks.logs.log_handler import LogHandlerHook
from otel_concurrency.instrumentors.failures import FailureInstrumentor
from otel_concurrency.probes.rate_limit import BURST
from otel_concurrency.signals import shutdown
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
tracer = TracerProvider().get_tracer(__name__)


class FailingError(Exception):
    pass


@pytest.fixture
def exporter() -> Iterator[InMemoryLogRecordExporter]:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    reset_logging_globals()
    set_logger_provider(provider)
    yield exporter
    reset_logging_globals()


@pytest.fixture
def instrumentor(exporter: InMemoryLogRecordExporter) -> Iterator[FailureInstrumentor]:
    instrumentor = FailureInstrumentor()
    instrumentor.instrument(max_error_types=1)
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def told(exporter: InMemoryLogRecordExporter) -> list[Any]:
    """What was told, when nothing waits any more."""
    shutdown._tell_first()
    return [each.log_record for each in exporter.get_finished_logs()]


def raised(message: str = "boom") -> FailingError:
    try:
        raise FailingError(message)
    except FailingError as error:
        return error


def call_excepthook(message: str = "boom") -> None:
    error = raised(message)
    sys.excepthook(type(error), error, error.__traceback__)


def counted(reader: InMemoryMetricReader) -> dict[tuple[str, ...], int]:
    data = reader.get_metrics_data()
    return {
        tuple(map(str, point.attributes.values())): point.value
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name == "python.failures"
    }


@pytest.fixture(autouse=True)
def hook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The program's own hooks, which stand there before ours."""
    called: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda *_: called.append("sys"))
    monkeypatch.setattr(sys, "unraisablehook", lambda _: called.append("unraisable"))
    monkeypatch.setattr(threading, "excepthook", lambda _: called.append("threading"))
    return called


def test_a_record_says_what_is_known(
    instrumentor: FailureInstrumentor, exporter: InMemoryLogRecordExporter, hook: list[str]
) -> None:
    with tracer.start_as_current_span("request") as span:
        call_excepthook()
    (record,) = told(exporter)
    assert (record.event_name, record.severity_text, record.body) == (
        "python.exception.uncaught",
        "FATAL",
        "boom",
    )
    assert (record.trace_id, record.span_id) == (
        span.get_span_context().trace_id,
        span.get_span_context().span_id,
    )
    attributes = dict(record.attributes)
    stack = attributes.pop("exception.stacktrace")
    assert stack.startswith("Traceback (most recent call last):\n")
    assert stack.endswith("FailingError: boom\n")
    assert attributes.pop("code.function.name") == f"{__name__}.raised"
    assert attributes == {
        "python.failure.kind": "main",
        "error.type": f"{__name__}.FailingError",
        "exception.type": f"{__name__}.FailingError",
        "exception.message": "boom",
        "code.file.path": __file__,
        "code.line.number": raised.__code__.co_firstlineno + 2,
        "thread.id": threading.get_ident(),
        "thread.name": "MainThread",
        "process.pid": attributes["process.pid"],
    }
    assert hook == ["sys"]


def test_an_open_span_is_told_at_once(instrumentor: FailureInstrumentor) -> None:
    with tracer.start_as_current_span("request") as span:
        call_excepthook()
        events = [(event.name, event.attributes["exception.message"]) for event in span.events]  # type: ignore[attr-defined]
    assert events == [("exception", "boom")]


def test_a_task_s_span_is_told_while_it_is_open(
    instrumentor: FailureInstrumentor, lazy_loop_factory: LoopFactory
) -> None:
    async def fails() -> None:
        raise FailingError("boom")

    async def main() -> list[str]:
        with tracer.start_as_current_span("request") as span:
            await asyncio.wait([asyncio.create_task(fails())])
            gc.collect()
            shutdown._tell_first()
            return [event.name for event in span.events]  # type: ignore[attr-defined]

    loops: list[Any] = []

    def quiet_loop() -> asyncio.AbstractEventLoop:
        loop = lazy_loop_factory()
        loop.set_exception_handler(lambda _, context: loops.append(context["message"]))
        return loop

    assert run(quiet_loop, main()) == ["exception"]
    assert loops == ["Task exception was never retrieved"]


def test_like_failures_are_left_out_and_counted(
    instrumentor: FailureInstrumentor,
    exporter: InMemoryLogRecordExporter,
    reader: InMemoryMetricReader,
    hook: list[str],
) -> None:
    for _ in range(BURST + 5):
        call_excepthook()
    assert len(told(exporter)) == BURST
    assert counted(reader) == {("main", f"{__name__}.FailingError"): BURST + 5}
    assert len(hook) == BURST + 5


def test_error_types_are_bounded(instrumentor: FailureInstrumentor, reader: InMemoryMetricReader) -> None:
    call_excepthook()
    sys.excepthook(KeyError, KeyError("x"), None)
    assert counted(reader) == {("main", f"{__name__}.FailingError"): 1, ("main", "_other"): 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_end_on_purpose_is_passed_on_and_not_told(
    error: BaseException,
    instrumentor: FailureInstrumentor,
    exporter: InMemoryLogRecordExporter,
    hook: list[str],
) -> None:
    sys.excepthook(type(error), error, None)
    assert (told(exporter), hook) == ([], ["sys"])


def test_neither_exception_nor_frames_are_kept(
    instrumentor: FailureInstrumentor, exporter: InMemoryLogRecordExporter
) -> None:
    class Local:
        pass

    def fails() -> None:
        local = Local()
        kept.append(weakref.ref(local))
        raise FailingError(str(local))

    kept: list[Any] = []
    gc.disable()
    try:
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
        assert kept[0]() is None
    finally:
        gc.enable()
    (record,) = told(exporter)
    assert record.attributes["python.failure.kind"] == "thread"


def test_an_exception_that_cannot_say_what_it_is_is_told(
    instrumentor: FailureInstrumentor, exporter: InMemoryLogRecordExporter
) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    sys.excepthook(MuteError, MuteError(), None)
    (record,) = told(exporter)
    assert record.attributes["exception.message"] == "<exception str() failed>"


def test_a_thread_s_hook_is_the_program_s_own_at_any_time(
    instrumentor: FailureInstrumentor,
    exporter: InMemoryLogRecordExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: called.append(str(args.exc_value)))
    thread = threading.Thread(target=lambda: raised_in_thread())
    thread.start()
    thread.join()
    assert called == ["thread"]
    assert [record.body for record in told(exporter)] == ["thread"]


def raised_in_thread() -> None:
    raise FailingError("thread")


def test_what_a_test_runner_leaves_behind_has_not_ended_the_program(
    instrumentor: FailureInstrumentor,
    exporter: InMemoryLogRecordExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "excepthook", print)
    monkeypatch.setattr(sys, "last_value", raised(), raising=False)
    assert told(exporter) == []


def test_a_thread_that_exits_is_no_failure(
    instrumentor: FailureInstrumentor, exporter: InMemoryLogRecordExporter
) -> None:
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    assert told(exporter) == []


class Fails:
    def __del__(self) -> None:
        raise FailingError("unraisable")


@pytest.mark.parametrize("is_collected", [False, True])
def test_an_unraisable_exception_has_a_trace_unless_a_collection_found_it(
    is_collected: bool,
    instrumentor: FailureInstrumentor,
    exporter: InMemoryLogRecordExporter,
    hook: list[str],
) -> None:
    with tracer.start_as_current_span("request") as span:
        cycle = [Fails()]
        if is_collected:
            cycle.append(cycle)  # type: ignore[arg-type]
        del cycle
        gc.collect()
    (record,) = told(exporter)
    assert record.event_name == "python.exception.unraisable"
    assert record.trace_id == (0 if is_collected else span.get_span_context().trace_id)
    assert hook == ["unraisable"]


async def never() -> None:
    pass


def test_a_coroutine_s_warning_comes_from_the_line_that_let_go_of_it(
    instrumentor: FailureInstrumentor, exporter: InMemoryLogRecordExporter
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        never()  # type: ignore[unused-coroutine]
        line = sys._getframe().f_lineno - 1
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, line)
    (record,) = told(exporter)
    assert (record.event_name, record.body) == (
        "python.coroutine.never_awaited",
        "coroutine 'never' was never awaited",
    )
    assert record.attributes["code.line.number"] == never.__code__.co_firstlineno


def test_a_coroutine_whose_warning_is_made_an_exception_is_told_once(
    instrumentor: FailureInstrumentor, exporter: InMemoryLogRecordExporter, hook: list[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        never()  # type: ignore[unused-coroutine]
    assert hook == ["unraisable"]
    assert [record.event_name for record in told(exporter)] == ["python.coroutine.never_awaited"]


class Handler(logging.Handler):
    """In the place of OpenTelemetry's."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage().splitlines()[0])


@pytest.fixture
def handler() -> Iterator[Handler]:
    handler, hook = Handler(), LogHandlerHook()
    logging.root.addHandler(handler)
    hook.install(handler)
    yield handler
    hook.remove(put_back=False)


def test_asyncio_s_own_record_goes_to_everybody_but_opentelemetry(
    instrumentor: FailureInstrumentor,
    exporter: InMemoryLogRecordExporter,
    handler: Handler,
    caplog: pytest.LogCaptureFixture,
    lazy_loop_factory: LoopFactory,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "told", "exception": raised()})
        loop.call_exception_handler({"message": "not a failure"})

    run(lazy_loop_factory, main())
    assert [record.body for record in told(exporter)] == ["boom"]
    assert handler.messages == ["not a failure"]
    assert [text.splitlines()[0] for text in caplog.messages] == ["told", "not a failure"]


def test_a_handler_that_fails_itself_is_logged_as_always(
    instrumentor: FailureInstrumentor, handler: Handler, lazy_loop_factory: LoopFactory
) -> None:
    def fails(loop: Any, context: Any) -> None:
        raise KeyError("theirs")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(fails)
        loop.call_exception_handler({"message": "told", "exception": raised()})

    run(lazy_loop_factory, main())
    assert handler.messages == ["Unhandled error in exception handler"]


def test_a_report_from_a_finaliser_is_told_later(
    instrumentor: FailureInstrumentor,
    exporter: InMemoryLogRecordExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There anything may be locked, also what telling needs."""
    places: list[bool] = []
    monkeypatch.setattr(FAILURES, "_listener", places.append)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: None)

    class Reports:
        def __del__(self) -> None:
            loop.call_exception_handler({"message": "unclosed", "exception": raised()})

    Reports()
    loop.call_exception_handler({"message": "unclosed", "exception": raised()})
    loop.close()
    assert places == [False, True]


def test_our_own_trouble_keeps_nobody_from_hearing(
    instrumentor: FailureInstrumentor, hook: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otel_concurrency.hooks.failures.failures.stack_of", lambda _: 1 / 0)
    call_excepthook()
    assert (hook, FAILURES.lost) == (["sys"], 1)
    FAILURES.reset()


def test_what_fails_in_a_context_of_nobody_has_no_trace(
    instrumentor: FailureInstrumentor, exporter: InMemoryLogRecordExporter
) -> None:
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, False))):
        Context().run(call_excepthook)
    (record,) = told(exporter)
    assert record.trace_id == 0


def test_removed_everything_is_as_it_was(exporter: InMemoryLogRecordExporter, hook: list[str]) -> None:
    def state() -> list[object]:
        return [
            sys.excepthook,
            sys.unraisablehook,
            threading.excepthook,
            threading._make_invoke_excepthook,  # type: ignore[attr-defined]
            warnings._warn_unawaited_coroutine,  # type: ignore[attr-defined]
            list(gc.callbacks),
            vars(asyncio.BaseEventLoop)["_asyncgen_finalizer_hook"],
            list(logging.getLogger("opentelemetry.context").filters),
        ]

    before = state()
    instrumentor = FailureInstrumentor()
    instrumentor.instrument()
    assert [one is other or one == other for one, other in zip(before, state(), strict=True)] == [
        *(False, False, True, False, False, False, False, False)
    ]
    instrumentor.uninstrument()
    assert state() == before
    call_excepthook()
    assert told(exporter) == []
    assert hook == ["sys"]
