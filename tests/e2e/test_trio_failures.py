"""On trio, too: every failure once, in the trace that created the work; what is handled, never."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.outcomes import Outcome, about, attributes, outcome

PROGRAM = Path(__file__).with_name("failing_on_trio.py")

TOLD: dict[str, tuple[str, dict[str, object]]] = {  # row: its event, and more that the record says
    "thread": ("python.thread.exception_uncaught", {"thread.name": "worker-8"}),
    "run_in_a_thread": ("python.thread.exception_uncaught", {"code.function.name": "__main__.fails"}),
    "pool_future": ("python.executor.future.unretrieved", {"python.executor.name": "files"}),
    "process_pool_future": ("python.executor.future.unretrieved", {}),
    "process": ("python.process.exception_uncaught", {}),
    "unraisable": ("python.exception.unraisable", {}),
    "asyncgen_left": ("asyncio.asyncgen.finaliser_failed", {"code.function.name": "__main__.numbers"}),
}
TRACELESS = {
    "asyncgen_collected": "asyncio.asyncgen.finaliser_failed",
    "asyncgen_at_the_end": "asyncio.asyncgen.finaliser_failed",
}
SILENT = (
    *("thread_that_catches", "pool_future_looked_at", "to_thread_awaited", "from_thread_caught"),
    *("coroutine_closed", "asyncgen_closed", "nursery_caught", "task_group_caught", "start_caught"),
    *("cancelled", "moved_on", "too_slow_caught", "shielded_and_cancelled"),
)
ROWS = (*TOLD, "coroutine_never_awaited", *TRACELESS, *SILENT)
ENDS = {  # row: the span that its end is told in, if anybody knows
    "ends_in_main": "ends_in_main",
    "ends_in_a_child": "ends_in_a_child",
    "ends_in_a_task_group": "ends_in_a_task_group",
    "ends_in_a_span_of_a_child": "ends_in_a_span_of_a_child, inner",
    "ends_in_a_nursery_of_all": "ends_in_a_nursery_of_all",
    "ends_too_slow": "ends_too_slow",
    "ends_in_a_system_task": "ends_in_a_system_task",
    "ends_in_a_callback": None,
}


@pytest.fixture(scope="module", params=["trio", "anyio"])
def all_rows(request: pytest.FixtureRequest) -> Outcome:
    return outcome(sys.executable, str(PROGRAM), request.param, *ROWS)


@pytest.mark.parametrize("row", TOLD)
def test_a_failure_is_told_once_in_its_trace(all_rows: Outcome, row: str) -> None:
    event, more = TOLD[row]
    (record,) = about(all_rows, row)
    told = attributes(record.attributes)
    span = all_rows.spans[row]
    assert record.event_name == event
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
    assert told["exception.type"].endswith("main__.FailingError")
    assert "FailingError: " + row in told["exception.stacktrace"]
    assert {key: told[key] for key in more} == more


def test_a_coroutine_never_awaited_is_told_once_in_its_trace(all_rows: Outcome) -> None:
    (record,) = [each for each in all_rows.records if each.event_name == "python.coroutine.never_awaited"]
    span = all_rows.spans["coroutine_never_awaited"]
    assert record.body.string_value == "coroutine 'coroutine_never_awaited' was never awaited"
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)


@pytest.mark.parametrize("row", TRACELESS)
def test_where_nobody_knows_the_trace_none_is_told(all_rows: Outcome, row: str) -> None:
    (record,) = about(all_rows, row)
    assert (record.event_name, record.trace_id) == (TRACELESS[row], b"")


@pytest.mark.parametrize("row", SILENT)
def test_what_is_handled_is_not_told(all_rows: Outcome, row: str) -> None:
    assert about(all_rows, row) == []
    assert all_rows.spans[row].status.code == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("nursery_caught", "task_group"),
        ("cancelled", "unknown"),
        ("moved_on", "timeout"),
        ("too_slow_caught", "timeout"),
        ("shielded_and_cancelled", None),
    ],
)
def test_a_cancellation_is_an_outcome(all_rows: Outcome, row: str, reason: str | None) -> None:
    inner = all_rows.spans[f"{row}, inner"]
    assert attributes(inner.attributes).get("asyncio.cancellation.reason") == reason
    assert inner.status.code == 0


def test_nothing_else_is_told(all_rows: Outcome) -> None:
    told = sorted(record.event_name or record.body.string_value for record in all_rows.records)
    assert told == sorted(
        [*(event for event, _ in TOLD.values()), *TRACELESS.values(), "python.coroutine.never_awaited"]
    )


def test_all_are_counted(all_rows: Outcome) -> None:
    error = "__main__.FailingError"
    assert all_rows.failures == {
        ("thread", error): 2,
        ("executor_future", error): 2,
        ("process", "__mp_main__.FailingError"): 1,
        ("coroutine_never_awaited", ""): 1,
        ("unraisable", error): 1,
        ("asyncgen", error): 3,
    }


def test_trio_says_what_it_always_says(all_rows: Outcome) -> None:
    assert all_rows.err.count("Exception ignored during finalization of async generator") == 3


@pytest.mark.parametrize("run", ["trio", "anyio"])
@pytest.mark.parametrize("row", ENDS)
def test_what_ends_the_program_is_told_once_where_it_was_raised(run: str, row: str) -> None:
    ended = outcome(sys.executable, str(PROGRAM), run, row)
    (record,) = ended.records
    told = attributes(record.attributes)
    span = ended.spans.get(ENDS[row])
    assert (record.event_name, record.severity_text) == ("python.exception.uncaught", "FATAL")
    assert (record.trace_id, record.span_id) == ((span.trace_id, span.span_id) if span else (b"", b""))
    assert told["exception.stacktrace"] == ended.err
    assert ("TooSlowError" if row == "ends_too_slow" else f"FailingError: {row}") in ended.err
    assert sum(ended.failures.values()) == 1
