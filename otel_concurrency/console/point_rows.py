"""Metric data points: from an OTLP metrics request to rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, TypeAlias

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from otel_concurrency.console.attributes import (
    HIGHEST_NS,
    bounded_list_json,
    hex_id,
    name,
    number,
    plain,
    resource_key,
    scope_key,
    series_json,
    to_json,
)
from otel_concurrency.console.schema import POINTS, Batch, PointRow

Point: TypeAlias = "NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint | SummaryDataPoint"

TEMPORALITIES = {
    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA: "delta",
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}
MAX_BUCKETS = 10_000
"""Of a histogram; the SDK's exponential ones have 160 at most."""

LOWEST_SCALE, HIGHEST_SCALE = -10, 20
"""Scales that exponential histograms use; outside of them a bucket's bound is no number any more."""


def point_batch(request: ExportMetricsServiceRequest, size_bytes: int, max_items: int) -> Batch:
    """Turn a request into rows, leaving out data points that cannot mean anything.

    Args:
        request: What came.
        size_bytes: What it weighed.
        max_items: Data points beyond this many are rejected.
    """
    batch = Batch(POINTS, size_bytes)
    for of_resource in request.resource_metrics:
        resource = resource_key(of_resource.resource, of_resource.schema_url, batch)
        for of_scope in of_resource.scope_metrics:
            scope = scope_key(of_scope.scope, of_scope.schema_url, batch)
            for metric in of_scope.metrics:
                _add_metric(metric, resource, scope, batch, max_items)
    return batch


def _add_metric(metric: Metric, resource: int, scope: int, batch: Batch, max_items: int) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data: Any = getattr(metric, kind)
    has_temporality = kind not in ("gauge", "summary")
    temporality = TEMPORALITIES.get(data.aggregation_temporality) if has_temporality else None
    points: list[Point] = data.data_points[: max(0, max_items - len(batch.rows))]
    if len(points) < len(data.data_points):
        left_out = len(data.data_points) - len(points)
        batch.reject(f"more than {max_items} data points in one request", left_out)
    if not metric.name:
        batch.reject("no metric name", len(points))
        return
    if has_temporality and temporality is None:
        batch.reject("no aggregation temporality", len(points))
        return
    for point in points:
        if max(point.start_time_unix_nano, point.time_unix_nano) > HIGHEST_NS:
            batch.reject("a time after the year 2262")
            continue
        numbers = _numbers(point)
        if isinstance(numbers, str):
            batch.reject(numbers)
            continue
        row = PointRow(
            resource_key=resource,
            scope_key=scope,
            name=name(metric.name),
            unit=name(metric.unit),
            description=name(metric.description),
            kind=kind,
            temporality=temporality,
            monotonic=data.is_monotonic if kind == "sum" else None,
            attributes=series_json(point.attributes),
            start_ns=point.start_time_unix_nano,
            time_ns=point.time_unix_nano,
            flags=point.flags,
            **numbers,
        )
        batch.rows.append(row)


def _numbers(point: Point) -> dict[str, Any] | str:
    """Return a point's numbers by column, or the reason to reject it."""
    if isinstance(point, NumberDataPoint):
        return _number(point)
    if isinstance(point, HistogramDataPoint):
        return _histogram(point)
    if isinstance(point, ExponentialHistogramDataPoint):
        return _exponential_histogram(point)
    if len(point.quantile_values) > MAX_BUCKETS:
        return f"more than {MAX_BUCKETS} quantiles"
    quantiles = [[item.quantile, number(item.value)] for item in point.quantile_values]
    return {
        "value_count": point.count,
        "value_sum": _finite(point.sum),
        "distribution": to_json({"quantiles": quantiles}),
    }


def _number(point: NumberDataPoint) -> dict[str, Any]:
    kind = point.WhichOneof("value")
    value = getattr(point, kind) if kind else None
    return {
        "value": None if value is None else _finite(float(value)),
        "int_value": value if kind == "as_int" else None,
        "distribution": None if value is None or math.isfinite(value) else to_json({"value": number(value)}),
        "exemplars": _exemplars_json(point.exemplars),
    }


def _histogram(point: HistogramDataPoint) -> dict[str, Any] | str:
    if len(point.bucket_counts) > MAX_BUCKETS:
        return f"more than {MAX_BUCKETS} buckets"
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if len(counts) != (len(bounds) + 1 if bounds or counts else 0):
        return "bucket counts that do not fit the bounds"
    if any(not low < high for low, high in pairwise(bounds)) or any(map(math.isnan, bounds)):
        return "bounds that do not grow"
    distribution = {"bounds": [number(bound) for bound in bounds], "counts": counts}
    return _statistics(point) | {"distribution": to_json(distribution)}


def _exponential_histogram(point: ExponentialHistogramDataPoint) -> dict[str, Any] | str:
    if not LOWEST_SCALE <= point.scale <= HIGHEST_SCALE:
        return f"a scale outside {LOWEST_SCALE} to {HIGHEST_SCALE}"
    if max(len(point.positive.bucket_counts), len(point.negative.bucket_counts)) > MAX_BUCKETS:
        return f"more than {MAX_BUCKETS} buckets"
    distribution = {
        "scale": point.scale,
        "zero_count": point.zero_count,
        "zero_threshold": number(point.zero_threshold),
        "positive": {"offset": point.positive.offset, "counts": list(point.positive.bucket_counts)},
        "negative": {"offset": point.negative.offset, "counts": list(point.negative.bucket_counts)},
    }
    return _statistics(point) | {"distribution": to_json(distribution)}


def _statistics(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> dict[str, Any]:
    return {
        "value_count": point.count,
        "value_sum": _finite(point.sum) if point.HasField("sum") else None,
        "value_min": _finite(point.min) if point.HasField("min") else None,
        "value_max": _finite(point.max) if point.HasField("max") else None,
        "exemplars": _exemplars_json(point.exemplars),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _exemplars_json(exemplars: Iterable[Exemplar]) -> str:
    text, _ = bounded_list_json(
        [
            {
                "time_ns": exemplar.time_unix_nano,
                "value": exemplar.as_int
                if exemplar.WhichOneof("value") == "as_int"
                else number(exemplar.as_double),
                "trace_id": hex_id(exemplar.trace_id, 16),
                "span_id": hex_id(exemplar.span_id, 8),
                "attributes": {pair.key: plain(pair.value) for pair in exemplar.filtered_attributes},
            }
            for exemplar in exemplars
        ]
    )
    return text
