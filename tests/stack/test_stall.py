"""A stall, from the loop that was held to the backend: one trace id in Jaeger and the log, its numbers."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import COMMAND, clean_environ
from tests.stack.backend import Backend, eventually
from tests.stack.dashboards import filled_in, log_queries

pytestmark = pytest.mark.stack

EXAMPLE = Path(__file__).parents[2] / "examples" / "stalls" / "blocking_call.py"
STALL = {
    "asyncio.eventloop.stall.cause": "blocked_call",
    "asyncio.eventloop.stall.call": "time.sleep",
    "code.function.name": "__main__.handle",
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_stall_is_found_by_the_trace_of_its_culprit(backend: Backend, loop: str) -> None:
    service = f"sleeper-{secrets.token_hex(4)}"
    ended = subprocess.run(
        [str(COMMAND), sys.executable, str(EXAMPLE), loop],
        env=clean_environ()
        | {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoints["otlp_http"],
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD": "0.1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")

    traces = eventually("three requests", lambda: backend.traces(service), lambda found: len(found) == 3)
    trace_ids = {span.trace_id for trace in traces for span in trace}
    events = [event for trace_id in trace_ids for event in backend.events(trace_id, "asyncio.stall")]
    assert [{key: event.get(key) for key in STALL} for event in events] == [STALL] * 3

    # Of one function, one of each in 10 s: those are the first request's.
    told = eventually(
        "two log records",
        lambda: [(trace_id, record) for trace_id in trace_ids for record in backend.records(trace_id)],
        lambda found: len(found) == 2,
    )
    assert len({trace_id for trace_id, _ in told}) == 1
    incidents = filled_in(dict(log_queries())["event-loop: Incidents"])
    assert {record.body for _, record in told} <= {record.body for record in backend.lines(incidents)}
    assert "stalls: blocked_call, __main__.handle in time.sleep" in told[0][1].body
    assert "stalled for 0.3" in told[1][1].body
    assert {record.span_id for _, record in told} == {
        span.span_id for trace in traces for span in trace if span.trace_id == told[0][0]
    }

    [series] = eventually(
        "the counter", lambda: backend.series(f'asyncio_eventloop_stalls_total{{job="{service}"}}')
    )
    assert (series.value, series.labels["code_function_name"]) == (3, "__main__.handle")
    assert series.labels["asyncio_eventloop_stall_cause"] == "blocked_call"
    [took] = eventually(
        "their duration",
        lambda: backend.series(f'asyncio_eventloop_stall_duration_seconds{{job="{service}"}}'),
    )
    assert took.count == 3
    assert took.sum == pytest.approx(0.9, abs=0.3)
