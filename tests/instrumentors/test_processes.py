"""The hooks of children, and the trace that the process was started in: joined, and let go of."""

from __future__ import annotations

import multiprocessing.process
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation import utils

from otel_concurrency.instrumentors.processes import ChildProcessInstrumentor

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
SHOW = [sys.executable, "-S", "-c", "import os; print(os.environ['TRACEPARENT'])"]
PATCHED = (
    (multiprocessing.process.BaseProcess, "start"),
    (multiprocessing.process.BaseProcess, "_bootstrap"),
    (subprocess.Popen, "__init__"),
    (utils, "_start_internal_or_server_span"),
)


def parts() -> list[Any]:
    return [vars(owner)[name] for owner, name in PATCHED]


@pytest.fixture(autouse=True)
def started_inside_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE:032x}-{SPAN:016x}-01")


@pytest.fixture
def instrumentor() -> Iterator[ChildProcessInstrumentor]:
    instrumentor = ChildProcessInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def test_it_begins_inside_the_trace_and_lets_go_of_everything(instrumentor: ChildProcessInstrumentor) -> None:
    before = parts()
    instrumentor.instrument()
    ids = trace.get_current_span().get_span_context()
    assert (ids.trace_id, ids.span_id, ids.is_remote) == (TRACE, SPAN, True)
    assert [new is old for new, old in zip(parts(), before, strict=True)] == [False] * 4
    instrumentor.uninstrument()
    assert not context.get_current()
    assert parts() == before


def test_a_program_hangs_on_the_current_span_not_on_the_first(instrumentor: ChildProcessInstrumentor) -> None:
    instrumentor.instrument()
    now = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
    with trace.use_span(now):
        assert subprocess.check_output(SHOW, text=True) == f"00-{1:032x}-{2:016x}-01\n"
    assert subprocess.check_output(SHOW, text=True) == f"00-{TRACE:032x}-{SPAN:016x}-01\n"


@pytest.mark.parametrize(
    ("options", "patched"),
    [
        ({"inherit_trace": False}, [True, True, True, False]),
        ({"inherit_trace": False, "subprocesses": False}, [True, True, False, False]),
    ],
)
def test_its_settings_turn_parts_of_it_off(
    instrumentor: ChildProcessInstrumentor, options: dict[str, bool], patched: list[bool]
) -> None:
    before = parts()
    instrumentor.instrument(**options)
    assert [new is not old for new, old in zip(parts(), before, strict=True)] == patched
    assert not context.get_current()


def test_a_program_that_starts_us_inside_of_a_span_stays_there(
    instrumentor: ChildProcessInstrumentor,
) -> None:
    now = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
    with trace.use_span(now):
        instrumentor.instrument()
        assert trace.get_current_span() is now
        instrumentor.uninstrument()
        assert trace.get_current_span() is now
