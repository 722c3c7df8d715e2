"""Limiters on their way to a reader."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_concurrency import AdaptiveLimiter
from otel_concurrency.instrumentors.limits import LimitInstrumentor


def told(reader: InMemoryMetricReader, limiter: str) -> dict[str, Any]:
    data = reader.get_metrics_data()
    scopes = data.resource_metrics[0].scope_metrics if data else ()
    return {
        metric.name: point.value
        for scope in scopes
        for metric in scope.metrics
        for point in metric.data.data_points
        if point.attributes.get("concurrency.limiter.name") == limiter
    }


def test_limiters_of_one_name_add_up(reader: InMemoryMetricReader) -> None:
    one, other = (AdaptiveLimiter("orders", initial=n, max_waiting=0) for n in (7, 30))
    instrumentor = LimitInstrumentor()
    instrumentor.instrument()
    try:
        with one, other:
            found = told(reader, "orders")
    finally:
        instrumentor.uninstrument()
    assert found == {
        "concurrency.limit.recommended": 37,
        "concurrency.limit.in_use": 2,
        "concurrency.limit.waiting": 0,
        "concurrency.limit.rejected": 0,
    }
    assert told(reader, "orders") == {}
