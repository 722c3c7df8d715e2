"""Each symptom of `examples/stalls/` under `opentelemetry-instrument`: cause, culprit, and whose trace."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.conftest import WITH_UVLOOP
from tests.e2e.conftest import COMMAND, Run, clean_environ, environ_for

EXAMPLES = Path(__file__).parents[2] / "examples" / "stalls"
HANDLE = "__main__.handle"
THRESHOLD = "OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD"


@dataclass(frozen=True, slots=True)
class Told:
    """What an example's process has exported; `longest_s` is its longest iteration."""

    stalls: dict[tuple[str, str], int]
    records: list[dict[str, Any]]
    span_events: list[dict[str, Any]]
    longest_s: float


def values(attributes: Any) -> dict[str, Any]:
    found = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = getattr(each.value, kind) if kind else None
    return found


def tell(receiver: OtlpProtoTestServer) -> Told:
    totals: dict[tuple[str, tuple[tuple[str, Any], ...]], float] = {}
    longest_s = 0.0
    for metric in receiver.drain_metrics():
        if metric.metric.name == "asyncio.eventloop.iteration.duration":
            longest_s = max(point.max for point in metric.metric.exponential_histogram.data_points)
        for point in metric.metric.sum.data_points:
            key = metric.metric.name, tuple(sorted(values(point.attributes).items()))
            totals[key] = point.as_int or point.as_double
    stalls: Counter[tuple[str, str]] = Counter()
    for (name, pairs), total in totals.items():
        labels = dict(pairs)
        if name == "asyncio.eventloop.stalls":
            stalls[labels["asyncio.eventloop.stall.cause"], labels["code.function.name"]] += int(total)
    spans = {each.span.span_id: each.span for each in receiver.drain_spans()}
    records = [
        {
            "event": each.log_record.event_name,
            "span": spans[each.log_record.span_id].name if each.log_record.span_id in spans else "",
            **values(each.log_record.attributes),
        }
        for each in receiver.drain_log_records()
        if each.log_record.event_name.startswith("asyncio.eventloop.stall.")
        and any(pair.key == "code.function.name" for pair in each.log_record.attributes)
    ]
    events = [
        {
            "span": span.name,
            "took_s": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
            "in_span": span.start_time_unix_nano <= event.time_unix_nano + 10_000_000,
            **values(event.attributes),
        }
        for span in spans.values()
        for event in span.events
        if event.name == "asyncio.stall"
    ]
    return Told(dict(stalls), records, events, longest_s)


Play = Callable[..., Told]


@pytest.fixture(params=["asyncio", WITH_UVLOOP])
def play(request: pytest.FixtureRequest, receiver: OtlpProtoTestServer) -> Play:
    """Run an example to its end."""

    def play(name: str, **env: str) -> Told:
        ended = subprocess.run(
            [str(COMMAND), sys.executable, str(EXAMPLES / f"{name}.py"), request.param],
            env=clean_environ() | environ_for(receiver) | env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        return tell(receiver)

    return play


@pytest.mark.parametrize(
    ("name", "cause", "call"),
    [
        ("blocking_call", "blocked_call", "time.sleep"),
        pytest.param("cpu_in_coroutine", "cpu_python", None, marks=pytest.mark.scenario),
        pytest.param("regex", "native_gil_held", "re.match", marks=pytest.mark.scenario),
        pytest.param("gil_bound_threads", "gil_contention", None, marks=pytest.mark.scenario),
        pytest.param("gc_pause", "gc_pause", None, marks=pytest.mark.scenario),
        pytest.param("cpu_hogs", "cpu_starved", None, marks=pytest.mark.scenario),
    ],
)
def test_a_stall_is_told_once_with_its_cause_and_in_the_trace_of_its_culprit(
    play: Play, name: str, cause: str, call: str | None
) -> None:
    told = play(name)
    assert told.stalls == {(cause, HANDLE): 3}
    shared = {
        "span": "request",
        "asyncio.eventloop.stall.cause": cause,
        "code.function.name": HANDLE,
        "asyncio.eventloop.stall.call": call,
        "code.file.path": str(EXAMPLES / f"{name}.py"),
    }
    # One of each in 10 s, so where the machine is not slow there are two of them.
    started_and_ended = ["asyncio.eventloop.stall.started", "asyncio.eventloop.stall.ended"]
    assert [each["event"] for each in told.records] == started_and_ended * (len(told.records) // 2)
    assert told.records
    assert [{key: each.get(key) for key in shared} for each in told.records] == [shared] * len(told.records)
    assert [{key: each.get(key) for key in shared} for each in told.span_events] == [shared] * 3
    took = [each["asyncio.eventloop.stall.elapsed"] - each["took_s"] for each in told.span_events]
    assert min(took) > -0.05
    # Who has no CPU may have to wait for it before the span and after it: then the loop's own clock decides.
    longer = [each["asyncio.eventloop.stall.elapsed"] - told.longest_s for each in told.span_events]
    assert max(longer if cause == "cpu_starved" else took) < 0.05
    assert all(each["in_span"] for each in told.span_events)


@pytest.mark.scenario
@pytest.mark.parametrize("name", ["healthy", "gil_free_thread", "lock_convoy"])
def test_where_no_loop_is_held_nothing_is_told(play: Play, name: str) -> None:
    told = play(name)
    assert (told.stalls, told.records, told.span_events) == ({}, [], [])


def test_a_threshold_of_0_turns_it_off(play: Play) -> None:
    told = play("blocking_call", **{THRESHOLD: "0"})
    assert (told.stalls, told.records, told.span_events) == ({}, [], [])


@pytest.mark.scenario
def test_a_loop_that_turns_without_anything_to_do_is_found(play: Play) -> None:
    told = play("spin")
    assert told.stalls == {("spin", "__main__.wait_for_it"): 1}
    assert [(each["event"], each["asyncio.eventloop.stall.cause"]) for each in told.records] == [
        ("asyncio.eventloop.stall.started", "spin"),
        ("asyncio.eventloop.stall.ended", "spin"),
    ]
    assert told.records[-1]["asyncio.eventloop.stall.elapsed"] == pytest.approx(5, rel=0.05)


RIGHT_BEFORE_THE_END = {
    "a blocking call": "time.sleep(0.4)",
    "C code that keeps the GIL": "re.match(r'(a+)+$', 'a' * 24 + 'b')",
}
ENDS = """
    import asyncio, re, time

    async def handle():
        await asyncio.sleep(0)
        {stall}

    asyncio.new_event_loop().run_until_complete(handle())
"""


@pytest.mark.parametrize("stall", RIGHT_BEFORE_THE_END.values(), ids=RIGHT_BEFORE_THE_END)
def test_a_stall_right_before_the_end_of_the_program_is_told(
    run: Run, receiver: OtlpProtoTestServer, stall: str
) -> None:
    ended = run(ENDS.format(stall=stall), env=environ_for(receiver))
    assert (ended.code, ended.err) == (0, "")
    told = tell(receiver)
    assert [function for _, function in told.stalls] == [HANDLE]
    assert told.records[-1]["event"] == "asyncio.eventloop.stall.ended"
    assert 0.2 < told.records[-1]["asyncio.eventloop.stall.elapsed"] <= told.longest_s + 0.05


HOLDS_UP_A_REQUEST = """
    import asyncio, time
    from opentelemetry import context, trace

    tracer = trace.get_tracer("test")

    async def victim(name, kind):
        with tracer.start_as_current_span(name, context.Context(), kind=kind):
            await asyncio.sleep(0.1)

    async def culprit():
        await asyncio.sleep(0.02)
        with tracer.start_as_current_span("culprit", context.Context(), kind=trace.SpanKind.SERVER):
            time.sleep(1)

    async def main():
        await asyncio.gather(
            victim("request", trace.SpanKind.SERVER), victim("work", trace.SpanKind.INTERNAL), culprit()
        )
        await victim("afterwards", trace.SpanKind.SERVER)

    asyncio.run(main())
"""


def test_requests_that_were_open_meanwhile_are_told_for_how_long(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    ended = run(HOLDS_UP_A_REQUEST, env=environ_for(receiver))
    assert (ended.code, ended.err) == (0, "")
    spans = [each.span for each in receiver.drain_spans()]
    overlaps = {span.name: values(span.attributes).get("concurrency.stall_overlap") for span in spans}
    (stall,) = (event for span in spans for event in span.events)
    waited_s = overlaps.pop("request")
    assert overlaps == {"work": None, "culprit": None, "afterwards": None}
    assert 0.8 < waited_s <= values(stall.attributes)["asyncio.eventloop.stall.elapsed"]
