"""Telemetry that is malformed, hostile or huge is stored within bounds, or refused; nothing breaks."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_concurrency.console import Store
from otel_concurrency.console.attributes import MAX_JSON, MAX_NAME, MAX_TEXT
from otel_concurrency.console.log_rows import log_batch
from otel_concurrency.console.point_rows import MAX_BUCKETS, point_batch
from otel_concurrency.console.span_rows import span_batch
from otel_concurrency.console.trace_tree import read_trace
from tests.console.conftest import TRACE_ID, trace_request

TEN_MB = 10 * 2**20
MARGIN = 100
"""What the words cost that say what was left out."""


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def store_spans(store: Store, *spans: dict[str, Any], service: str = "shop") -> None:
    request = trace_request(*spans, service=service)
    store.insert(span_batch(request, request.ByteSize(), 1_000_000))


def store_points(store: Store, request: ExportMetricsServiceRequest) -> str:
    batch = point_batch(request, request.ByteSize(), 1_000_000)
    store.insert(batch)
    return batch.rejection


def test_a_huge_attribute_is_cut_and_its_neighbours_stay(store: Store) -> None:
    store_spans(store, {"attributes": [text("huge", "x" * TEN_MB), text("small", "here")]})
    ((attributes,),) = store.query("SELECT attributes FROM spans")
    assert json.loads(attributes) == {
        "huge": f"{'x' * MAX_TEXT}… ({TEN_MB - MAX_TEXT} more characters)",
        "small": "here",
    }


def test_of_many_attributes_the_first_stay(store: Store) -> None:
    store_spans(store, {"attributes": [text(f"key {number}", "v" * 50) for number in range(100_000)]})
    ((attributes,),) = store.query("SELECT attributes FROM spans")
    kept = json.loads(attributes)
    assert len(attributes) <= MAX_JSON
    assert kept["key 0"] == "v" * 50
    assert kept["…"] == f"{100_000 - (len(kept) - 1)} more left out"


def test_of_many_events_and_links_the_first_stay_and_the_others_count_as_dropped(store: Store) -> None:
    events = [{"name": "e" * 100, "time_unix_nano": number} for number in range(20_000)]
    links = [{"trace_id": TRACE_ID, "span_id": b"12345678"} for _ in range(20_000)]
    store_spans(store, {"events": events, "links": links, "dropped_links_count": 2**32 - 1})
    query = "SELECT events, links, dropped_events, dropped_links FROM spans"
    ((kept_events, kept_links, dropped_events, dropped_links),) = store.query(query)
    assert max(len(kept_events), len(kept_links)) <= MAX_JSON
    assert len(json.loads(kept_events)) + dropped_events == 20_000
    assert len(json.loads(kept_links)) > 1_000
    assert dropped_links == 2**32 - 1


def test_huge_names_are_cut_everywhere(store: Store) -> None:
    huge = "n" * TEN_MB
    store_spans(store, {"name": huge, "status": {"message": huge}, "trace_state": huge}, service=huge)
    told = store.query(
        "SELECT max(length(name)), max(length(status_message)), max(length(trace_state)), "
        "max(length(service)), max(length(resources.attributes)) FROM spans "
        "JOIN resources USING (resource_key)"
    )
    assert max(told[0][:4]) <= MAX_NAME + MARGIN
    assert told[0][4] <= MAX_JSON


@pytest.mark.parametrize("body", ["b" * TEN_MB, ["b" * 100] * 100_000, {"k" * TEN_MB: 1}])
def test_a_huge_body_is_cut(store: Store, body: Any) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    if isinstance(body, str):
        record.body.string_value = body
    elif isinstance(body, list):
        record.body.array_value.values.extend(AnyValue(string_value=item) for item in body)
    else:
        record.body.kvlist_value.values.extend(KeyValue(key=key) for key in body)
    store.insert(log_batch(request, request.ByteSize(), 1_000_000))
    ((stored,),) = store.query("SELECT body FROM logs")
    assert len(stored) <= MAX_JSON
    assert "more" in json.dumps(json.loads(stored))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a\0b", "\u202etxt", "'; DROP TABLE spans; --", "\n", ""]
)
def test_any_text_is_stored_as_it_is(store: Store, name: str) -> None:
    store_spans(store, {"name": name, "attributes": [text("k", name)]})
    ((stored, attributes),) = store.query("SELECT name, attributes FROM spans")
    assert (stored, json.loads(attributes)) == (name, {"k": name})


def test_numbers_that_are_none_are_none_and_named(store: Store) -> None:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    points = metrics.add(name="gauge").gauge.data_points
    for value in (math.nan, math.inf, -math.inf, 1e308):
        points.add(as_double=value)
    points.add(as_int=-(2**63))
    summary = metrics.add(name="histogram").histogram
    summary.aggregation_temporality = 2
    summary.data_points.add(count=2**64 - 1, sum=math.inf, min=math.nan, max=-math.inf)
    assert store_points(store, request) == ""
    columns = "value, int_value, distribution ->> '$.value'"
    query = f"SELECT {columns} FROM metric_points WHERE name = 'gauge' ORDER BY id"
    assert store.query(query) == [
        (None, None, "NaN"),
        (None, None, "Infinity"),
        (None, None, "-Infinity"),
        (1e308, None, None),
        (-(2.0**63), -(2**63), None),
    ]
    query = "SELECT value_count, value_sum, value_min, value_max FROM metric_points WHERE name = 'histogram'"
    assert store.query(query) == [(2**64 - 1, None, None, None)]


def test_a_histogram_of_too_many_buckets_is_refused(store: Store) -> None:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    classic = metrics.add(name="classic").histogram
    classic.aggregation_temporality = 2
    classic.data_points.add(
        bucket_counts=[1] * (MAX_BUCKETS + 1), explicit_bounds=map(float, range(MAX_BUCKETS))
    )
    exponential = metrics.add(name="exponential").exponential_histogram
    exponential.aggregation_temporality = 2
    exponential.data_points.add().positive.bucket_counts.extend([1] * (MAX_BUCKETS + 1))
    assert store_points(store, request) == f"2 with more than {MAX_BUCKETS} buckets"
    assert store.query("SELECT count(*) FROM metric_points") == [(0,)]


def test_one_key_with_values_of_two_kinds_is_no_matter(store: Store) -> None:
    request = ExportMetricsServiceRequest()
    point = (
        request.resource_metrics.add()
        .scope_metrics.add()
        .metrics.add(name="g")
        .gauge.data_points.add(as_int=1)
    )
    point.attributes.extend(
        [text("k", "v"), KeyValue(key="k", value=AnyValue(int_value=1)), KeyValue(key="k")]
    )
    assert store_points(store, request) == ""
    assert store.query("SELECT attributes FROM metric_points") == [('{"k":null}',)]


def test_cycles_lost_parents_and_clocks_that_disagree_make_a_trace(store: Store) -> None:
    ids = [number.to_bytes(8, "big") for number in range(1, 6)]
    store_spans(
        store,
        {"span_id": ids[0], "parent_span_id": ids[1]},
        {"span_id": ids[1], "parent_span_id": ids[0]},
        {"span_id": ids[2], "parent_span_id": ids[2]},
        {"span_id": ids[3], "parent_span_id": b"nowhere!"},
        {"span_id": ids[4], "start_time_unix_nano": 2**62, "end_time_unix_nano": 0},
        {"span_id": ids[4], "start_time_unix_nano": 5, "end_time_unix_nano": 6},
    )
    trace = read_trace(store, TRACE_ID.hex())
    assert {span.span_id for span in trace.spans} == {span_id.hex() for span_id in ids}
    assert min(span.duration_ns for span in trace.spans) >= 0


def test_distinct_names_and_resources_without_end_stay_within_the_limits() -> None:
    """Each row has a name, a resource and a scope of its own; what no row points at goes."""
    with Store(max_rows=1_000) as store:
        for lap in range(5):
            request = trace_request()
            for number in range(1_000):
                of_resource = request.resource_spans.add()
                of_resource.resource.attributes.append(text("service.name", f"service {lap} {number}"))
                of_scope = of_resource.scope_spans.add()
                of_scope.scope.name = f"scope {lap} {number}"
                of_scope.spans.add(
                    trace_id=TRACE_ID, span_id=number.to_bytes(7, "big") + b"x", name=f"n{lap} {number}"
                )
            store.insert(span_batch(request, request.ByteSize(), 1_000_000))
        assert store.counts()["spans"].stored <= 1_000
        for table in ("resources", "scopes"):
            assert store.query(f"SELECT count(*) <= 3000 FROM {table}") == [(True,)]
        joined = (
            "SELECT count(*) = (SELECT count(*) FROM spans) FROM spans JOIN resources USING (resource_key)"
        )
        assert store.query(joined) == [(True,)]
