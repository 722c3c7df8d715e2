"""Telemetry for tests of the console's queries and pages: rows, put into a store as the receiver would."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from otel_concurrency.console import Store
from otel_concurrency.console.schema import (
    LOGS,
    POINTS,
    SPANS,
    Batch,
    LogRow,
    PointRow,
    ResourceRow,
    ScopeRow,
    SpanRow,
    Table,
)

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND
"""When things begin in these tests."""

TRACE = "ab" * 16


class Teller:
    """A process that tells what we say.

    Args:
        store: Who is told.
        service: Its `service.name`.
        instance: Its `service.instance.id`.
    """

    def __init__(self, store: Store, service: str = "shop", instance: str = "one", **resource: Any) -> None:
        self._store = store
        told = {"service.name": service, "service.instance.id": instance, **resource}
        key = abs(hash((service, instance))) % 2**40
        self._resource = ResourceRow(key, service, instance, json.dumps(told), "")
        self._ids = count(1)

    def span(self, name: str = "GET /", **fields: Any) -> str:
        """Tell of a span, which is valid but for what is given, and return its id."""
        span_id = fields.pop("span_id", None) or f"{next(self._ids):016x}"
        row: dict[str, Any] = {
            "resource_key": self._resource.resource_key,
            "scope_key": 1,
            "trace_id": TRACE,
            "span_id": span_id,
            "parent_span_id": None,
            "trace_state": "",
            "flags": 1,
            "name": name,
            "kind": "internal",
            "start_ns": T0,
            "end_ns": T0 + SECOND // 10,
            "status": "unset",
            "status_message": "",
            "attributes": {},
            "events": [],
            "links": [],
            "dropped_attributes": 0,
            "dropped_events": 0,
            "dropped_links": 0,
        } | fields
        for key in ("attributes", "events", "links"):
            row[key] = json.dumps(row[key])
        self._tell(SPANS, SpanRow(**row))
        return span_id

    def log(self, body: Any = "said", **fields: Any) -> None:
        """Tell of a log record."""
        row: dict[str, Any] = {
            "resource_key": self._resource.resource_key,
            "scope_key": 1,
            "time_ns": T0,
            "observed_ns": T0,
            "severity_number": 9,
            "severity": "INFO",
            "body": body,
            "event_name": "",
            "trace_id": None,
            "span_id": None,
            "flags": 0,
            "attributes": {},
            "dropped_attributes": 0,
        } | fields
        for key in ("body", "attributes"):
            row[key] = json.dumps(row[key])
        self._tell(LOGS, LogRow(**row))

    def point(self, name: str, at_s: float, value: float | None = None, **fields: Any) -> None:
        """Tell of a data point; of a cumulative sum, unless it is told otherwise."""
        row: dict[str, Any] = {
            "resource_key": self._resource.resource_key,
            "scope_key": 1,
            "name": name,
            "unit": "",
            "description": "",
            "kind": "sum",
            "temporality": "cumulative",
            "monotonic": True,
            "attributes": {},
            "start_ns": T0 - 1000 * SECOND,
            "time_ns": T0 + round(at_s * SECOND),
            "flags": 0,
            "value": value,
        } | fields
        row["attributes"] = json.dumps(row["attributes"], sort_keys=True)
        for key in ("distribution", "exemplars"):
            if key in row:
                row[key] = json.dumps(row[key])
        self._tell(POINTS, PointRow(**row))

    def histogram(self, name: str, at_s: float, counts: list[int], **fields: Any) -> None:
        """Tell of a histogram with the bounds 0.01, 0.1 and 1."""
        self.point(
            name,
            at_s,
            **{
                "kind": "histogram",
                "unit": "s",
                "value_count": sum(counts),
                "value_sum": 0.05 * sum(counts),
                "value_min": None,
                "value_max": None,
                "distribution": {"bounds": [0.01, 0.1, 1.0], "counts": counts},
                **fields,
            },
        )

    def _tell(self, table: Table, row: tuple[Any, ...]) -> None:
        batch = Batch(table, 1, [row], {self._resource.resource_key: self._resource})
        batch.scopes[1] = ScopeRow(1, "tests", "", "{}", "")
        self._store.insert(batch)
