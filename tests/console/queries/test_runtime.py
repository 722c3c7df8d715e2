"""Loops, tasks, findings, requests, shared things, logs, metrics and timelines, from what programs tell."""

from __future__ import annotations

from typing import Any

import pytest

from otel_concurrency.console import Store
from otel_concurrency.console.queries.calls import Call, calls
from otel_concurrency.console.queries.findings import findings
from otel_concurrency.console.queries.logs import LogFilter, log_counts, logs, one_log
from otel_concurrency.console.queries.loops import heat, loops
from otel_concurrency.console.queries.metrics import Exemplar, Metric, attribute_keys, exemplars, metrics
from otel_concurrency.console.queries.requests import routes
from otel_concurrency.console.queries.resources import resources
from otel_concurrency.console.queries.scope import Scope
from otel_concurrency.console.queries.services import Extent, extent, processes
from otel_concurrency.console.queries.tasks import coroutines
from otel_concurrency.console.queries.timeline import timeline
from tests.console.telling import SECOND, T0, TRACE, Teller

MINUTE = Scope(T0, T0 + 60 * SECOND)
DELTA: dict[str, Any] = {"temporality": "delta"}
LOOP = {"asyncio.eventloop.id": "0", "asyncio.eventloop.type": "uvloop"}
OF = {"code.function.name": "app.cook"}
STALL = "asyncio.eventloop.stall.ended"


def test_a_loops_time_is_shared_out(store: Store) -> None:
    shop = Teller(store)
    for state, value in (("active", 3.0), ("idle", 1.0)):
        shop.point(
            "asyncio.eventloop.time", 5, value, attributes={**LOOP, "asyncio.eventloop.state": state}, **DELTA
        )
    for part, value in (("cpu", 1.0), ("runqueue", 0.4), ("blocked", 1.6)):
        shop.point(f"asyncio.eventloop.{part}.time", 5, value, attributes=LOOP, **DELTA)

    (loop,) = loops(store, MINUTE, 2)
    assert (loop.service, loop.loop_id, loop.kind, loop.busy) == ("shop", "0", "uvloop", 0.75)
    assert loop.shares == {
        "cpu": [0.25, None],
        "run queue": [0.1, None],
        "blocked": [0.4, None],
        "idle": [0.25, None],
    }


def test_heat_counts_by_step_and_bucket(store: Store) -> None:
    shop = Teller(store)
    shop.histogram("h", 5, [1, 2, 0, 0], **DELTA)
    shop.histogram("h", 35, [0, 0, 3, 0], **DELTA)

    told = heat(store, MINUTE, "h", steps=2)
    assert sorted((step, told.bounds[row], held) for step, row, held in told.cells) == [
        (0, 0.015625, 1),
        (0, 0.125, 2),
        (1, 1.0, 3),
    ]
    assert told.quantiles[0.5][1] == pytest.approx(0.316, abs=0.01)


def test_tasks_are_told_by_coroutine(store: Store) -> None:
    shop = Teller(store)
    for at_s, created, done in ((5, 10.0, 9.0), (50, 14.0, 10.0)):
        shop.point("asyncio.task.created", at_s, created, attributes=OF, start_ns=T0)
        outcome = {"asyncio.task.outcome": "failed"}
        shop.point("asyncio.task.completed", at_s, done, attributes={**OF, **outcome}, start_ns=T0)
    shop.histogram("asyncio.task.duration", 50, [5, 5, 0, 0], attributes=OF, start_ns=T0)

    (line,) = coroutines(store, MINUTE)
    assert (line.function, line.created, line.outcomes, line.live) == ("app.cook", 14, {"failed": 10}, 4)
    assert line.durations.count == 10


def test_tasks_of_a_process_that_has_gone_are_not_alive(store: Store) -> None:
    Teller(store).point("asyncio.task.created", 5, 3.0, attributes=OF, start_ns=T0)

    assert [line.live for line in coroutines(store, Scope(T0, T0 + 600 * SECOND))] == [0]


def test_stalls_of_one_line_are_one_finding_with_its_traces(store: Store) -> None:
    shop = Teller(store)
    told = {**OF, "asyncio.eventloop.stall.cause": "blocked_call", "asyncio.eventloop.stall.elapsed": 0.5}
    shop.log(
        "stalled", event_name=STALL, severity_number=13, trace_id=TRACE, span_id="1" * 16, attributes=told
    )
    shop.log(
        "stalled again",
        event_name=STALL,
        severity_number=13,
        time_ns=T0 + SECOND,
        trace_id="cd" * 16,
        attributes={**told, "otel_concurrency.events.suppressed": 3},
    )
    shop.log("ends", event_name="process.shutdown.completed")

    (found,) = findings(store, MINUTE)
    assert (found.kind, found.count, found.elapsed_s, found.severity) == (STALL, 5, 1.0, "warn")
    assert (found.last.text, found.first_ns, found.is_open) == ("stalled again", T0, None)
    assert found.traces == [("cd" * 16, ""), (TRACE, "1" * 16)]


@pytest.mark.parametrize(("last", "is_open"), [("updated", True), ("closed", False)])
def test_a_diagnosis_is_open_until_it_is_closed(store: Store, last: str, is_open: bool) -> None:
    told = {
        "concurrency.diagnosis.rule": "cpu_starvation",
        "concurrency.diagnosis.subject": "loop 0",
        "concurrency.diagnosis.traces": [TRACE],
    }
    for at, change in enumerate(("opened", last)):
        name = f"concurrency.diagnosis.{change}"
        Teller(store).log(change, event_name=name, time_ns=T0 + at, attributes=told, severity_number=13)

    (found,) = findings(store, MINUTE)
    assert (found.kind, found.is_open, found.count, found.traces) == (
        "cpu_starvation",
        is_open,
        2,
        [(TRACE, "")],
    )


def test_requests_are_told_by_route_with_the_parts_of_their_time(store: Store) -> None:
    shop = Teller(store)
    for seconds, code in ((1, 200), (3, 500)):
        shop.span(
            "GET /",
            kind="server",
            end_ns=T0 + seconds * SECOND,
            attributes={"concurrency.busy_time": seconds / 10, "http.response.status_code": code},
        )

    (route,) = routes(store, MINUTE)
    assert (route.name, route.count, route.errors, route.p50_s) == ("GET /", 2, 1, 2.0)
    assert route.parts[:2] == (pytest.approx(0.2), 0.0)


def test_calls_between_services_are_told(store: Store) -> None:
    shop, warehouse = Teller(store, "shop"), Teller(store, "warehouse")
    root = shop.span("POST /", kind="server")
    client = shop.span("POST", kind="client", parent_span_id=root)
    warehouse.span("reserve", kind="server", span_id="f" * 16, parent_span_id=client, status="error")
    warehouse.span("inside", kind="server", span_id="e" * 16, parent_span_id="f" * 16)

    assert calls(store, MINUTE) == [Call("shop", "warehouse", 1, 1, 0.1)]


def test_what_is_waited_for_comes_first_then_what_is_full(store: Store) -> None:
    shop = Teller(store)
    plain = {"monotonic": False}
    lock = {"asyncio.sync.type": "lock"}
    shop.point("asyncio.sync.waiting", 5, 2.0, attributes=lock, **plain)
    shop.histogram("asyncio.sync.wait.duration", 5, [0, 4, 0, 0], attributes=lock, **DELTA)
    pool = {"python.executor.type": "thread", "python.executor.name": "ovens"}
    for state, value in (("active", 1.0), ("idle", 1.0)):
        attributes = {**pool, "python.executor.worker.state": state}
        shop.point("python.executor.worker.count", 5, value, attributes=attributes, **plain)
    shop.point("python.executor.worker.limit", 5, 2.0, attributes=pool, **plain)
    database = {"db.client.connection.pool.name": "main"}
    attributes = {**database, "db.client.connection.state": "used"}
    shop.point("db.client.connection.count", 5, 5.0, attributes=attributes, **plain)
    shop.point("db.client.connection.max", 5, 5.0, attributes=database, **plain)
    held = {**database, "db.client.connection.holders": "Task-1 3 s"}
    shop.log("exhausted", event_name="db.client.connection.pool.exhausted", attributes=held)

    found = [
        (it.kind, it.name, it.used, it.limit, it.waiters, it.waits.count, it.holder)
        for it in resources(store, MINUTE)
    ]
    assert found == [
        ("lock", "lock", None, None, 2.0, 4, ""),
        ("db pool", "main", 5.0, 5.0, None, 0, "Task-1 3 s"),
        ("executor", "thread ovens", 1.0, 2.0, None, 0, ""),
    ]


@pytest.mark.parametrize(
    ("wanted", "texts"),
    [
        (LogFilter(), ["second", "first"]),
        (LogFilter(text="FIRST"), ["first"]),
        (LogFilter(text="oven"), ["second"]),
        (LogFilter(text=TRACE), ["first"]),
        (LogFilter(severity="error"), ["second"]),
        (LogFilter(only_events=True), ["second"]),
        (LogFilter(before=1), ["first"]),
        (LogFilter(text="%"), []),
    ],
)
def test_records_are_found_by_text_severity_and_trace(
    store: Store, wanted: LogFilter, texts: list[str]
) -> None:
    shop = Teller(store)
    shop.log("first", trace_id=TRACE)
    shop.log(
        "second",
        severity_number=17,
        event_name="e",
        attributes={"where": "oven"},
        time_ns=T0 + 40 * SECOND,
    )

    assert [line.text for line in logs(store, MINUTE, wanted)] == texts


def test_records_are_counted_by_severity(store: Store) -> None:
    Teller(store).log("x", severity_number=17)
    Teller(store).log("y", time_ns=T0 + 40 * SECOND)

    assert log_counts(store, MINUTE, steps=2) == {"error": [1.0, 0.0], "info": [0.0, 1.0]}


def test_one_record_is_told_whole(store: Store) -> None:
    Teller(store).log({"a": 1}, attributes={"k": "v"})

    told = one_log(store, 0)
    assert told is not None
    assert (told.line.text, told.attributes, told.resource["service.name"]) == (
        '{"a": 1}',
        {"k": "v"},
        "shop",
    )
    assert one_log(store, 7) is None


def test_any_metric_is_listed_with_its_attributes_and_exemplars(store: Store) -> None:
    exemplar = {"time_ns": T0 + 5, "value": 0.2, "trace_id": TRACE, "span_id": "1" * 16, "attributes": {}}
    for at_s in (5, 6):
        Teller(store).histogram("h", at_s, [1, 0, 0, 0], attributes={"b": 1, "a": 2}, exemplars=[exemplar])

    assert metrics(store, MINUTE) == [Metric("h", "s", "histogram", True, "", 1)]
    assert attribute_keys(store, MINUTE, "h") == ["a", "b"]
    assert exemplars(store, MINUTE, "h") == [Exemplar(T0 + 5, 0.2, TRACE, "1" * 16, "shop")]


def test_a_timeline_holds_what_overlaps_its_window(store: Store) -> None:
    shop = Teller(store, **{"process.pid": 7})
    place = {"thread.name": "MainThread", "asyncio.task.name": "Task-1"}
    shop.span("before", start_ns=T0 - 10, end_ns=T0 - 5)
    shop.span("across", start_ns=T0 - 10, end_ns=T0 + 5, attributes=place)
    shop.log("stalled", event_name=STALL)

    told = timeline(store, MINUTE)
    assert [(it.name, it.pid, it.thread, it.task) for it in told.pieces] == [
        ("across", "7", "MainThread", "Task-1")
    ]
    assert (told.left_out, [stall.text for stall in told.stalls]) == (0, ["stalled"])


def test_who_sent_something_and_when(store: Store) -> None:
    assert extent(store) == Extent(None, None)
    for instance in ("one", "two"):
        Teller(store, "shop", instance, **{"process.pid": 7}).log("x")

    assert [(it.service, it.instance, it.pid) for it in processes(store)] == [
        ("shop", "one", 7),
        ("shop", "two", 7),
    ]
    assert extent(store) == Extent(T0, T0)
