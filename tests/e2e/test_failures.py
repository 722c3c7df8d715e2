"""Every failure once, in the trace that created the work; what is handled, never."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import WITH_UVLOOP
from tests.e2e.outcomes import Outcome, about, attributes, created_in, outcome

PROGRAM = Path(__file__).with_name("failing.py")

TOLD: dict[str, tuple[str, dict[str, object]]] = {  # row: its event, and more that the record says
    "task_never_retrieved": (
        "asyncio.task.exception_never_retrieved",
        {"asyncio.task.name": "worker-7", "asyncio.task.coroutine.name": "__main__.fails"},
    ),
    "future_never_retrieved": ("asyncio.future.exception_never_retrieved", {}),
    "gather_never_retrieved": ("asyncio.future.exception_never_retrieved", {}),
    "executor_never_awaited": ("asyncio.future.exception_never_retrieved", {}),
    "sent_from_a_thread": ("asyncio.future.exception_never_retrieved", {}),
    "callback": ("asyncio.eventloop.callback_failed", {"code.function.name": "__main__.raises"}),
    "done_callback": ("asyncio.eventloop.callback_failed", {}),
    "asyncgen_left": ("asyncio.asyncgen.finaliser_failed", {}),
    "pool_future": ("python.executor.future.unretrieved", {"python.executor.name": "files"}),
    "process_pool_future": ("python.executor.future.unretrieved", {}),
    "thread_pool_result": ("python.executor.future.unretrieved", {}),
    "mp_pool_result": ("python.executor.future.unretrieved", {}),
    "process": ("python.process.exception_uncaught", {}),
    "forked_process": ("python.process.exception_uncaught", {}),
    "task_that_fails_at_the_end": ("asyncio.eventloop.exception", {"python.failure.kind": "other"}),
    "thread": ("python.thread.exception_uncaught", {"thread.name": "worker-8"}),
    "unraisable": ("python.exception.unraisable", {}),
}
RAISED_NOTHING = {
    "task_destroyed_pending": ("asyncio.task.destroyed_pending", "Task was destroyed but it is pending!"),
    "coroutine_never_awaited": (
        "python.coroutine.never_awaited",
        "coroutine 'coroutine_never_awaited' was never awaited",
    ),
}
TRACELESS = {"asyncgen_collected": "asyncio.asyncgen.finaliser_failed"}
SILENT = (
    *("task_awaited", "task_gathered", "task_in_a_group", "task_cancelled", "task_timed_out"),
    *("future_retrieved", "executor_awaited", "sent_and_waited_for", "callback_that_catches"),
    "thread_pool_results_looked_at",
    *("coroutine_closed", "pool_future_looked_at", "asyncgen_closed", "thread_that_catches"),
)
ROWS = (*TOLD, *RAISED_NOTHING, *TRACELESS, *SILENT, "context_detach")


@pytest.fixture(scope="module", params=["asyncio", WITH_UVLOOP])
def all_rows(request: pytest.FixtureRequest) -> Outcome:
    return outcome(sys.executable, str(PROGRAM), request.param, *ROWS)


@pytest.mark.parametrize("row", TOLD)
def test_a_failure_is_told_once_in_its_trace(all_rows: Outcome, row: str) -> None:
    event, more = TOLD[row]
    (record,) = about(all_rows, row)
    told = attributes(record.attributes)
    span = all_rows.spans[row]
    assert record.event_name == event
    assert created_in(all_rows, record) == (span.trace_id, span.span_id)
    assert told["exception.type"] == told["error.type"]
    assert told["exception.type"].endswith("main__.FailingError")
    assert "FailingError: " + row in told["exception.stacktrace"]
    assert {key: told[key] for key in more} == more
    assert {"thread.id", "process.pid"} <= told.keys()


@pytest.mark.parametrize("row", RAISED_NOTHING)
def test_work_that_came_to_nothing_is_told_once_in_its_trace(all_rows: Outcome, row: str) -> None:
    event, body = RAISED_NOTHING[row]
    (record,) = [each for each in all_rows.records if each.event_name == event]
    span = all_rows.spans[row]
    assert record.body.string_value == body
    assert created_in(all_rows, record) == (span.trace_id, span.span_id)
    assert attributes(record.attributes)["code.file.path"] == str(PROGRAM)


@pytest.mark.parametrize("row", TRACELESS)
def test_where_nobody_knows_the_trace_none_is_told(all_rows: Outcome, row: str) -> None:
    (record,) = about(all_rows, row)
    assert (record.event_name, record.trace_id) == (TRACELESS[row], b"")


@pytest.mark.parametrize("row", SILENT)
def test_what_is_handled_is_not_told(all_rows: Outcome, row: str) -> None:
    assert about(all_rows, row) == []
    assert all_rows.spans[row].name == row


def test_a_context_that_cannot_be_left_is_one_event_without_a_traceback_on_the_way(all_rows: Outcome) -> None:
    (record,) = [each for each in all_rows.records if "detach" in each.event_name]
    assert record.trace_id == all_rows.spans["context_detach"].trace_id
    assert attributes(record.attributes)["code.function.name"].endswith("in_a_span")
    assert "Failed to detach" not in all_rows.err


def test_nothing_else_is_told(all_rows: Outcome) -> None:
    told = sorted(record.event_name or record.body.string_value for record in all_rows.records)
    assert told == sorted(
        [
            *(event for event, _ in TOLD.values()),
            *(event for event, _ in RAISED_NOTHING.values()),
            *TRACELESS.values(),
            "opentelemetry.context.detach_failed",
        ]
    )


def test_all_are_counted(all_rows: Outcome) -> None:
    error = "__main__.FailingError"
    assert all_rows.failures == {
        ("task_never_retrieved", error): 1,
        ("future_never_retrieved", error): 4,
        ("task_destroyed_pending", ""): 1,
        ("callback", error): 2,
        ("asyncgen", error): 2,
        ("coroutine_never_awaited", ""): 1,
        ("executor_future", error): 4,
        ("process", "__mp_main__.FailingError"): 1,
        ("process", error): 1,
        ("other", error): 1,
        ("thread", error): 1,
        ("unraisable", error): 1,
        ("context_detach", "ValueError"): 1,
    }


def test_python_says_what_it_always_says(all_rows: Outcome) -> None:
    for said in (
        "Task exception was never retrieved",
        "Exception in thread worker-8",
        "Task was destroyed but it is pending!",
        "RuntimeWarning: coroutine 'coroutine_never_awaited' was never awaited",
        "<function Fails.__del__",
    ):
        assert said in all_rows.err
    assert all_rows.err.count("Process worker-9") == 2


def test_an_uncaught_exception_arrives_before_the_process_is_gone() -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    ended = outcome(
        sys.executable,
        "-c",
        "raise LookupError('gone')",
        env={"TRACEPARENT": f"00-{trace_id}-{span_id}-01"},
    )
    (record,) = ended.records
    assert (record.event_name, record.severity_text) == ("python.exception.uncaught", "FATAL")
    assert (record.trace_id.hex(), record.span_id.hex()) == (trace_id, span_id)
    assert attributes(record.attributes)["exception.stacktrace"] == ended.err
    assert ended.failures == {("main", "LookupError"): 1}


IN_A_SPAN = """
import asyncio, contextlib, sys
from opentelemetry import trace
tracer = trace.get_tracer("job")

@contextlib.contextmanager
def step(name):
    with tracer.start_as_current_span(name):
        yield

def fails(number):
    raise LookupError(number)

def handled():
    with tracer.start_as_current_span("handled"), contextlib.suppress(LookupError):
        with tracer.start_as_current_span("handled, inner"):
            fails(1)

def job():
    with tracer.start_as_current_span("job"):
        with tracer.start_as_current_span("inner"):
            fails(2)

def job_tried_again():
    # Until an exception is where the one before it was in memory.
    places = set()
    for _ in range(1000):  # fewer than the SDK's queue of spans has room for
        try:
            tried(places)
        except LookupError as error:
            if error.args == ("again",):
                raise

def tried(places):
    error = LookupError()  # first of all, so that nothing else takes the place
    with tracer.start_as_current_span("handled") as span:
        try:
            if id(error) in places:
                span.update_name("inner")
                error.args = ("again",)
            places.clear()
            places.add(id(error))
            raise error
        finally:
            del error

def job_of_steps():
    with step("job"), step("inner"):
        fails(2)

@tracer.start_as_current_span("job")
def decorated():
    with tracer.start_as_current_span("inner"):
        fails(2)

async def task():
    job()

async def group():
    async with asyncio.TaskGroup() as group:
        group.create_task(task())
        group.create_task(handled_later())

async def handled_later():
    await asyncio.sleep(0)
    handled()

handled()
"""


SINCE_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with CPython 3.11")


@pytest.mark.parametrize(
    "job",
    [
        *("job()", "job_tried_again()", "job_of_steps()", "decorated()", "asyncio.run(task())"),
        pytest.param("asyncio.run(group())", marks=SINCE_311),
    ],
)
def test_an_uncaught_exception_is_told_in_the_span_that_it_was_raised_in(job: str) -> None:
    ended = outcome(sys.executable, "-c", IN_A_SPAN + job)
    (record,) = ended.records
    inner = ended.spans["inner"]
    assert (record.trace_id, record.span_id) == (inner.trace_id, inner.span_id)


def test_one_that_was_raised_in_no_span_is_told_in_none() -> None:
    """Although its like was raised in one before."""
    ended = outcome(sys.executable, "-c", IN_A_SPAN + "fails(2)")
    (record,) = ended.records
    assert record.trace_id == b""


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ("def hook(*args): print('theirs', file=sys.stderr)", "theirs\n"),
        ("def hook(*args, before=sys.excepthook): before(*args)", "LookupError: gone\n"),
    ],
    ids=["alone", "with the one before"],
)
def test_a_hook_that_the_program_sets_later_keeps_nothing_from_us(hook: str, says: str) -> None:
    ended = outcome(
        sys.executable, "-c", f"import sys\n{hook}\nsys.excepthook = hook\nraise LookupError('gone')"
    )
    assert ended.err.endswith(says)
    (record,) = ended.records
    assert record.event_name == "python.exception.uncaught"


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "raise KeyboardInterrupt", "pass"])
def test_an_end_on_purpose_is_no_failure(code: str) -> None:
    ended = outcome(sys.executable, "-c", code)
    assert (ended.records, ended.failures) == ([], {})


UNRAISABLE = """
import atexit, os, signal

class Fails:
    def __del__(self):
        raise KeyError("last words")
"""


@pytest.mark.parametrize(
    "end",
    [
        "Fails(); os._exit(0)",
        "Fails(); os.kill(os.getpid(), signal.SIGTERM)",
        "atexit.register(Fails().__del__)",
        "atexit.register(lambda: {}['last words'])",
    ],
)
def test_the_last_words_of_a_process_arrive(end: str) -> None:
    ended = outcome(sys.executable, "-c", UNRAISABLE + end)
    told = {(each.event_name, each.body.string_value) for each in ended.records if "exc" in each.event_name}
    assert told == {("python.exception.unraisable", "'last words'")}


def test_a_fork_tells_only_what_fails_in_it() -> None:
    program = (
        UNRAISABLE
        + """
Fails()
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
else:
    raise LookupError("the child's")
"""
    )
    ended = outcome(sys.executable, "-c", program)
    assert sorted(each.body.string_value for each in ended.records) == ["'last words'", "the child's"]
    assert ended.failures == {("unraisable", "KeyError"): 1, ("main", "LookupError"): 1}


@pytest.mark.parametrize(
    ("disabled", "events"), [("", ["LookupError"]), ("exceptions", [])], ids=["upstream's", "none"]
)
def test_switched_off_it_leaves_the_place_to_upstream_s(disabled: str, events: list[str]) -> None:
    ended = outcome(
        sys.executable,
        "-c",
        UNRAISABLE + "Fails()\nraise LookupError",
        env={
            "OTEL_PYTHON_CONCURRENCY_FAILURES": "false",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled,
        },
    )
    assert ([each.event_name for each in ended.records], ended.failures) == (events, {})
