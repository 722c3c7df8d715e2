"""The list of traces and its filters, and one trace whole, however broken."""

from __future__ import annotations

import pytest

from otel_concurrency.console import Store
from otel_concurrency.console.queries.scope import Scope
from otel_concurrency.console.queries.trace import whole_trace
from otel_concurrency.console.queries.traces import TraceFilter, TraceRow, traces
from tests.console.telling import SECOND, T0, TRACE, Teller

MINUTE = Scope(T0, T0 + 60 * SECOND)
OTHER = "cd" * 16


@pytest.fixture
def two_traces(store: Store) -> Store:
    """A slow one across two services, and a quick one with an error."""
    shop, warehouse = Teller(store, "shop"), Teller(store, "warehouse")
    root = shop.span("POST /checkout", kind="server", end_ns=T0 + 2 * SECOND)
    warehouse.span("reserve", parent_span_id=root, span_id="f" * 16, attributes={"item": "top shelf"})
    shop.span("GET /", trace_id=OTHER, status="error", start_ns=T0 + SECOND, end_ns=T0 + SECOND + 1000)
    return store


def test_a_row_tells_of_the_root(two_traces: Store) -> None:
    assert traces(two_traces, MINUTE) == [
        TraceRow(OTHER, "shop", "GET /", T0 + SECOND, 1000, 1, 1, 1),
        TraceRow(TRACE, "shop", "POST /checkout", T0, 2 * SECOND, 2, 0, 2),
    ]


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (TraceFilter(name="RESERVE"), [TRACE]),
        (TraceFilter(text="top SHELF"), [TRACE]),
        (TraceFilter(text=OTHER.upper()), [OTHER]),
        (TraceFilter(only_errors=True), [OTHER]),
        (TraceFilter(min_duration_s=1), [TRACE]),
        (TraceFilter(order="slowest"), [TRACE, OTHER]),
        (TraceFilter(order="no such order"), [OTHER, TRACE]),
        (TraceFilter(name="%"), []),
    ],
)
def test_a_filter_keeps_traces_with_a_span_that_fits(
    two_traces: Store, wanted: TraceFilter, kept: list[str]
) -> None:
    assert [row.trace_id for row in traces(two_traces, MINUTE, wanted)] == kept


def test_a_trace_outside_the_range_is_not_listed(two_traces: Store) -> None:
    assert traces(two_traces, Scope(0, T0 - 1)) == []


def test_of_a_service_traces_are_listed_whole(two_traces: Store) -> None:
    scope = Scope(T0, T0 + SECOND, services=("warehouse",))

    assert [(row.trace_id, row.spans) for row in traces(two_traces, scope)] == [(TRACE, 2)]


def test_log_records_stand_in_their_spans_and_others_beside(store: Store) -> None:
    shop = Teller(store)
    root = shop.span("root")
    shop.log("inside", trace_id=TRACE, span_id=root)
    shop.log({"a": 1}, trace_id=TRACE, span_id="e" * 16)

    trace = whole_trace(store, TRACE)
    assert trace is not None
    assert [record.text for record in trace.roots[0].records] == ["inside"]
    assert [record.text for record in trace.unplaced] == ['{"a": 1}']


def test_broken_parents_circles_and_doubles_lose_no_span(store: Store) -> None:
    shop = Teller(store)
    shop.span("orphan", span_id="1" * 16, parent_span_id="9" * 16)
    shop.span("own parent", span_id="2" * 16, parent_span_id="2" * 16)
    shop.span("circle a", span_id="3" * 16, parent_span_id="4" * 16)
    shop.span("circle b", span_id="4" * 16, parent_span_id="3" * 16)
    shop.span("orphan", span_id="1" * 16, parent_span_id="9" * 16)

    trace = whole_trace(store, TRACE)
    assert trace is not None
    assert sorted(root.name for root in trace.roots) == ["circle a", "orphan", "own parent"]
    assert [child.name for root in trace.roots for child in root.children] == ["circle b"]


def test_who_links_to_a_trace_is_found(store: Store) -> None:
    shop = Teller(store)
    root = shop.span("root")
    follower = shop.span("later", trace_id=OTHER, links=[{"trace_id": TRACE, "span_id": root}])

    trace = whole_trace(store, TRACE)
    assert trace is not None
    assert [(it.trace_id, it.span_id, it.to_span_id) for it in trace.linked] == [(OTHER, follower, root)]


def test_a_trace_that_is_not_stored_is_none(store: Store) -> None:
    assert whole_trace(store, TRACE) is None
