"""Where a wait for a connection is told: on the request's account, in the current span, in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.probes.account import ATTRIBUTE, DB_POOL, PureAccount
from otel_concurrency.probes.connections import Holder
from otel_concurrency.signals import connection_waits
from otel_concurrency.signals.connection_waits import ConnectionWaits
from otel_concurrency.signals.names import CONNECTION_HOLDERS, CONNECTION_POOL, POOL_WAIT_TIME, SUPPRESSED

MS = 1_000_000


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        spans: tuple[ReadableSpan, ...] = self.exporter.get_finished_spans()
        return [(event.name, dict(event.attributes or {})) for span in spans for event in span.events]


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []

    class Logger:
        def emit(self, **record: Any) -> None:
            records.append(record)

    monkeypatch.setattr(connection_waits, "get_logger", lambda *_: Logger())
    return records


@contextmanager
def request(spans: Spans) -> Iterator[PureAccount]:
    """A span with an account."""
    account = PureAccount()
    account.begin()
    with spans.tracer.start_as_current_span("request") as span:
        setattr(span, ATTRIBUTE, account)
        yield account


def test_every_wait_counts_and_a_long_one_is_an_event(spans: Spans, logged: list[dict[str, Any]]) -> None:
    waits = ConnectionWaits()
    with request(spans) as account:
        waits.waited("db", 9 * MS)
        waits.waited("db", 11 * MS)
    assert account.read().waited[DB_POOL] == (2, 20 * MS)
    assert spans.events() == [("pool.wait", {CONNECTION_POOL: "db", POOL_WAIT_TIME: 0.011})]
    assert logged == []


def test_outside_of_a_span_only_the_log_hears(logged: list[dict[str, Any]]) -> None:
    waits = ConnectionWaits()
    waits.waited("db", 11 * MS)
    assert logged == []
    waits.timed_out("db", 11 * MS, [])
    assert len(logged) == 1


def test_who_has_the_connections_is_logged_once_in_ten_seconds(
    spans: Spans, logged: list[dict[str, Any]]
) -> None:
    now = 1_000_000 * MS
    waits = ConnectionWaits(clock=lambda: now)
    holders = [Holder(f"worker-{number}", (20 - number) * 1_000 * MS) for number in range(12)]
    with request(spans) as account:
        for _ in range(3):
            waits.timed_out("db", 2_000 * MS, holders)
        waits.timed_out("other", 2_000 * MS, [])
        now += 10_000 * MS
        waits.timed_out("db", 2_000 * MS, holders)
    assert account.read().waited[DB_POOL] == (5, 10_000 * MS)
    told = [f"worker-{number} for {20 - number}.000 s" for number in range(10)]
    attributes = {CONNECTION_POOL: "db", CONNECTION_HOLDERS: told, POOL_WAIT_TIME: 2.0}
    assert [(record["event_name"], record["attributes"]) for record in logged] == [
        ("db.client.connection.pool.exhausted", attributes),
        (
            "db.client.connection.pool.exhausted",
            attributes | {CONNECTION_POOL: "other", CONNECTION_HOLDERS: []},
        ),
        ("db.client.connection.pool.exhausted", attributes | {SUPPRESSED: 2}),
    ]
    assert logged[0]["body"] == "No connection of db came back within 2.000 s; 12 are in use"
    assert [name for name, _ in spans.events()] == ["pool.wait"] * 5
    assert spans.events()[0] == ("pool.wait", attributes | {CONNECTION_HOLDERS: tuple(told)})
