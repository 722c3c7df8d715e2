"""Files: what is exported comes back as it was, and what others wrote is read or refused."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_concurrency.console import Store
from otel_concurrency.console.importing import ImportFailed, import_telemetry
from otel_concurrency.console.log_rows import log_batch
from otel_concurrency.console.otlp_export import export_otlp
from otel_concurrency.console.point_rows import point_batch
from otel_concurrency.console.settings import ConsoleSettings
from otel_concurrency.console.span_rows import span_batch
from otel_concurrency.console.trace_events import export_trace_events
from otel_concurrency.console.web import web_server
from tests.console.conftest import TRACE_ID, pairs, trace_request

TABLES = ("resources", "scopes", "spans", "logs", "metric_points")


def fill(store: Store) -> None:
    """Store one of everything."""
    for service in ("shop", "warehouse"):
        request = trace_request(
            {
                "kind": 2,
                "attributes": pairs(a="text", b=1, c=1.5, d=True),
                "flags": 257,
                "trace_state": "k=v",
            },
            {
                "parent_span_id": (1).to_bytes(8, "big"),
                "status": {"code": 2, "message": "no"},
                "events": [{"name": "e", "time_unix_nano": 7, "attributes": pairs(k=2)}],
                "links": [
                    {"trace_id": b"l" * 16, "span_id": b"m" * 8, "trace_state": "", "attributes": pairs(k=2)}
                ],
                "dropped_events_count": 3,
            },
            service=service,
        )
        store.insert(span_batch(request, 100, 1000))
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add(schema_url="https://example.org/1").log_records
    records.add(
        time_unix_nano=5, severity_number=9, trace_id=TRACE_ID, span_id=b"12345678"
    ).body.string_value = "one"
    other = records.add(observed_time_unix_nano=6, event_name="event")
    other.body.kvlist_value.values.extend(pairs(k=1.0))
    store.insert(log_batch(logs, 100, 1000))
    metrics = ExportMetricsServiceRequest()
    added = metrics.resource_metrics.add().scope_metrics.add().metrics
    added.add(name="gauge", unit="s").gauge.data_points.add(as_double=float("nan"), time_unix_nano=9)
    added.add(name="none").gauge.data_points.add(flags=1)
    total = added.add(name="sum").sum
    total.aggregation_temporality, total.is_monotonic = 2, True
    for number in range(2):
        total.data_points.add(as_int=2**60 + number, attributes=pairs(number=number))
    exemplar = total.data_points[0].exemplars.add(as_double=1.5, trace_id=TRACE_ID, span_id=b"12345678")
    exemplar.filtered_attributes.extend(pairs(k="v"))
    classic = added.add(name="classic").histogram
    classic.aggregation_temporality = 1
    classic.data_points.add(count=3, sum=1.5, min=0.1, max=1.0, bucket_counts=[1, 2], explicit_bounds=[0.5])
    exponential = added.add(name="exponential").exponential_histogram
    exponential.aggregation_temporality = 2
    point = exponential.data_points.add(count=2**64 - 1, scale=3, zero_count=1, zero_threshold=1e-9)
    point.positive.offset, point.negative.offset = -4, 5
    point.positive.bucket_counts.extend([1, 2, 3])
    added.add(name="summary").summary.data_points.add(count=1, sum=2.0).quantile_values.add(
        quantile=0.5, value=1.0
    )
    store.insert(point_batch(metrics, 100, 1000))


def content(store: Store) -> dict[str, list[Any]]:
    """Return all rows, but for their numbers and when they came."""
    numbering = "id, received_ns, size_bytes"
    without = {
        table: "" if table in ("resources", "scopes") else f"EXCLUDE ({numbering})" for table in TABLES
    }
    return {table: store.query(f"SELECT * {without[table]} FROM {table} ORDER BY ALL") for table in TABLES}


def test_otlp_comes_back_as_it_was(store: Store) -> None:
    fill(store)
    with Store() as other:
        stored = import_telemetry(other, "".join(export_otlp(store)).encode())
        assert stored == {"spans": 4, "logs": 2, "metric_points": 7}
        assert content(other) == content(store)


def test_one_trace_can_be_exported(store: Store) -> None:
    fill(store)
    store.insert(span_batch(trace_request({"trace_id": b"o" * 16}), 100, 1000))
    with Store() as other:
        assert import_telemetry(other, "".join(export_otlp(store, TRACE_ID.hex())).encode()) == {
            "spans": 4,
            "logs": 1,
        }
    events = json.loads("".join(export_trace_events(store, TRACE_ID.hex())))["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == 4


def test_exports_come_in_parts(store: Store) -> None:
    for number in range(5):
        spans = (
            {"trace_id": bytes([number + 1]) * 16, "span_id": part.to_bytes(8, "big")}
            for part in range(1, 501)
        )
        store.insert(span_batch(trace_request(*spans), 100, 1000))
    lines = list(export_otlp(store))
    assert len(lines) == 3
    with Store() as other:
        import_telemetry(other, "".join(lines).encode())
        assert content(other)["spans"] == content(store)["spans"]


def test_trace_events_lie_within_one_another_on_every_track(store: Store) -> None:
    """Spans that overlap without that are on tracks of their own; all go back into what they were."""
    times = {1: (0, 100), 2: (10, 60), 3: (50, 90), 4: (60, 70), 5: (200, 300), 6: (30, 20)}
    spans = (
        {
            "span_id": number.to_bytes(8, "big"),
            "start_time_unix_nano": 1_700_000_000_000_000_000 + start,
            "end_time_unix_nano": 1_700_000_000_000_000_000 + end,
            "attributes": pairs(thread_id=7, thread_name="MainThread", n=number),
            "kind": 3,
            "status": {"code": 2 if number == 3 else 0},
        }
        for number, (start, end) in times.items()
    )
    store.insert(span_batch(trace_request(*spans), 100, 1000))
    document = "".join(export_trace_events(store))
    events = json.loads(document)["traceEvents"]
    tracks: dict[int, set[int]] = {}
    for event in events:
        if event["ph"] == "X":
            tracks.setdefault(event["tid"], set()).add(event["args"]["n"])
    assert sorted(map(sorted, tracks.values())) == [[1, 2, 4, 5, 6], [3]]
    named = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert sorted(named.values()) == ["MainThread", "MainThread (2)"]
    with Store() as other:
        assert import_telemetry(other, document.encode()) == {"spans": 6}
        columns = (
            "trace_id, span_id, parent_span_id, name, kind, status, start_ns, end_ns, attributes ->> '$.n'"
        )
        query = f"SELECT {columns} FROM spans ORDER BY span_id"
        assert other.query(query) == store.query(query)


def test_trace_events_of_others_become_spans(store: Store) -> None:
    """Times since some start end now; a slice's parent is the one around it on its track."""
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "browser"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 2, "args": {"name": "main"}},
        {"ph": "X", "name": "outer", "pid": 1, "tid": 2, "ts": 0, "dur": 100},
        {
            "ph": "X",
            "name": "inner",
            "pid": 1,
            "tid": 2,
            "ts": 10.5,
            "dur": 20,
            "args": {"big": 2**70, "l": [1]},
        },
        {"ph": "B", "name": "pair", "pid": 1, "tid": 3, "ts": 5},
        {"ph": "E", "pid": 1, "tid": 3, "ts": 8, "args": {"k": True}},
        {"ph": "b", "cat": "c", "id": "0x1", "name": "async", "pid": 1, "tid": 3, "ts": 1},
        {"ph": "e", "cat": "c", "id": "0x1", "pid": 1, "tid": 4, "ts": 9},
        {"ph": "i", "name": "instant", "ts": 1},
        {"ph": "E", "pid": 1, "tid": 9, "ts": 8},
        {"ph": "X", "name": "no time", "ts": "soon"},
        {"ph": "X", "name": "endless", "ts": 1e300},
        "nonsense",
    ]
    assert import_telemetry(store, json.dumps(events).encode()) == {"spans": 4}
    query = (
        "SELECT a.name, b.name, a.end_ns - a.start_ns, service, a.attributes ->> '$.\"thread.name\"' "
        "FROM spans a LEFT JOIN spans b ON a.parent_span_id = b.span_id AND a.trace_id = b.trace_id "
        "JOIN resources ON a.resource_key = resources.resource_key ORDER BY a.start_ns"
    )
    rows = [(name, parent, round(took_ns, -3), *rest) for name, parent, took_ns, *rest in store.query(query)]
    assert rows == [
        ("outer", None, 100_000, "browser", "main"),
        ("async", None, 8_000, "browser", "c 0x1"),
        ("pair", None, 3_000, "browser", "3"),
        ("inner", "outer", 20_000, "browser", "main"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "not JSON"),
        ('{"resourceSpans": [', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": 1}', "document 1: neither OTLP"),
        ("7", "document 1: neither OTLP"),
        ('{"resourceSpans": 7}', "document 1: resourceSpans: expected an array"),
        ('{"resourceSpans": []}\n{"resourceLogs": [{"scopeLogs": 1}]}', "document 2: resourceLogs"),
        ('{"traceEvents": {}}', "traceEvents is no array"),
        ("\ud800", "not JSON"),
    ],
)
def test_what_is_neither_is_refused(store: Store, text: str, says: str) -> None:
    with pytest.raises(ImportFailed, match=says):
        import_telemetry(store, text.encode(errors="surrogatepass"))


def test_an_empty_file_holds_nothing(store: Store) -> None:
    assert import_telemetry(store, b" \n") == {}


Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(store: Store) -> Iterator[Ask]:
    """Ask the console's own paths."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = web_server(store, ConsoleSettings(port=port), listener)
    server.start()

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        told = response.status, response.read().decode()
        connection.close()
        return told

    yield ask
    server.stop()


def test_out_and_away_and_in_again(store: Store, ask: Ask) -> None:
    fill(store)
    before = content(store)
    status, exported = ask("GET", "/console/export")
    assert status == 200
    status, events = ask("GET", "/console/export?format=perfetto")
    assert status == 200
    assert json.loads(events)["displayTimeUnit"] == "ms"
    assert ask("GET", "/console/export?format=x") == (400, "format is one of otlp, perfetto")
    assert ask("GET", "/console/clear")[0] == 405
    assert ask("POST", "/console/clear", Origin="http://evil.example")[0] == 403
    assert content(store) == before
    assert ask("POST", "/console/clear") == (200, "{}")
    assert content(store)["spans"] == []
    assert ask("POST", "/console/import", b"nonsense")[0] == 400
    assert ask("POST", "/console/import", exported.encode())[0] == 200
    assert content(store) == before
