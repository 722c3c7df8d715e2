"""Metrics in Prometheus' text format, and in OpenMetrics, which has exemplars.

Written here because `opentelemetry-exporter-prometheus` (0.66b1) knows neither exponential histograms nor
exemplars, and names some metrics otherwise than Prometheus does when it takes in OTLP. The tests hold it to
the parsers of `prometheus_client`.

Prometheus refuses an answer as a whole that has one series twice, or one name with two types: of such only
the first is told, and the others are counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics._internal.point import ExponentialHistogramDataPoint
from opentelemetry.sdk.metrics.export import (
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_concurrency.endpoints.histogram_buckets import Bucket, explicit_buckets, exponential_buckets
from otel_concurrency.endpoints.prometheus_names import label_name, metric_name

TEXT = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"

MAX_LINES = 200_000
"""How long an answer may be: some 30 MB."""

LEFT_OUT = "otel_concurrency_endpoint_series_left_out"
_LEFT_OUT_HELP = "Series that this answer lacks: told twice, under two types, or beyond the limit"


@dataclass(slots=True)
class _Family:
    """All series of one name."""

    kind: str
    description: str
    lines: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


class Exposition:
    """One answer, made of what a reader has collected.

    Args:
        openmetrics: Whether it is to be OpenMetrics rather than Prometheus' text.
        max_lines: Samples beyond it are left out, and counted.
    """

    def __init__(self, *, openmetrics: bool, max_lines: int = MAX_LINES) -> None:
        self._openmetrics = openmetrics
        self._max_lines = max_lines
        self._lines = 0
        self._families: dict[str, _Family] = {}
        self.left_out = 0

    def add(self, data: MetricsData) -> None:
        """Add all metrics of a collection."""
        for of_resource in data.resource_metrics:
            self._add_target(of_resource.resource)
            for of_scope in of_resource.scope_metrics:
                scope = _scope_labels(of_scope.scope)
                for metric in of_scope.metrics:
                    self._add_metric(metric, scope)

    def text(self) -> str:
        """Return the answer."""
        if self.left_out:
            self._families[LEFT_OUT] = _Family("gauge", _LEFT_OUT_HELP, [f"{LEFT_OUT} {self.left_out}"])
        parts = []
        for name, family in self._families.items():
            if not family.lines:
                continue
            told = name.removesuffix("_total" if family.kind == "counter" else "_info")
            if self._openmetrics:
                kind, shown = family.kind, told if family.kind in ("counter", "info") else name
            else:
                kind, shown = ("gauge" if family.kind == "info" else family.kind), name
            parts.append(f"# HELP {shown} {_escaped(family.description, quotes=self._openmetrics)}\n")
            parts.append(f"# TYPE {shown} {kind}\n")
            parts.append("\n".join(family.lines))
            parts.append("\n")
        if self._openmetrics:
            parts.append("# EOF\n")
        return "".join(parts)

    def _add_target(self, resource: Resource) -> None:
        labels = _labels(resource.attributes)
        self._add_series("target_info", "info", "Target metadata", labels, [("", "", "1", "")])

    def _add_metric(self, metric: Metric, scope: Mapping[str, str]) -> None:
        data = metric.data
        is_counter = isinstance(data, Sum) and data.is_monotonic
        name = metric_name(
            metric.name, metric.unit or "", is_counter=is_counter, is_gauge=isinstance(data, Gauge)
        )
        if not name:
            self.left_out += len(data.data_points)
            return
        description = metric.description or ""
        for point in data.data_points:
            labels = _labels(point.attributes or {}, scope)
            if isinstance(point, NumberDataPoint):
                kind = "counter" if is_counter else "gauge"
                exemplar = self._exemplar(_latest(point.exemplars)) if is_counter else ""
                samples = [("", "", _number(point.value), exemplar)]
            else:
                kind, samples = "histogram", self._histogram(point)
            self._add_series(name, kind, description, labels, samples)

    def _histogram(
        self, point: HistogramDataPoint | ExponentialHistogramDataPoint
    ) -> list[tuple[str, str, str, str]]:
        """Return suffix, further label, value and exemplar of each sample."""
        if isinstance(point, HistogramDataPoint):
            buckets = explicit_buckets(point)
        else:
            buckets = exponential_buckets(point)
        exemplars = _by_bucket(point.exemplars or (), buckets) if self._openmetrics else {}
        samples = [
            ("_bucket", f'le="{_number(bound)}"', str(count), self._exemplar(exemplars.get(bound)))
            for bound, count in buckets
        ]
        # A histogram of values below zero has no sum in OpenMetrics: it could go down.
        if not (self._openmetrics and buckets and buckets[0][0] < 0 and buckets[0][1]):
            samples.append(("_sum", "", _number(point.sum), ""))
        samples.append(("_count", "", str(point.count), ""))
        return samples

    def _add_series(
        self,
        name: str,
        kind: str,
        description: str,
        labels: Mapping[str, str],
        samples: Sequence[tuple[str, str, str, str]],
    ) -> None:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = _Family(kind, description)
        told = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
        if family.kind != kind or told in family.seen or self._lines + len(samples) > self._max_lines:
            self.left_out += 1
            return
        family.seen.add(told)
        self._lines += len(samples)
        for suffix, further, value, exemplar in samples:
            shown = ",".join(part for part in (told, further) if part)
            braced = f"{{{shown}}}" if shown else ""
            family.lines.append(f"{name}{suffix}{braced} {value}{exemplar}")

    def _exemplar(self, exemplar: Exemplar | None) -> str:
        if exemplar is None or not self._openmetrics or not exemplar.trace_id:
            return ""
        return (
            f' # {{trace_id="{exemplar.trace_id:032x}",span_id="{exemplar.span_id or 0:016x}"}} '
            f"{_number(exemplar.value)} {exemplar.time_unix_nano / 1e9:.3f}"
        )


def _latest(exemplars: Iterable[Exemplar] | None) -> Exemplar | None:
    in_traces = [each for each in exemplars or () if each.trace_id]
    return max(in_traces, key=lambda each: each.time_unix_nano, default=None)


def _by_bucket(exemplars: Iterable[Exemplar], buckets: Sequence[Bucket]) -> dict[float, Exemplar]:
    """Return the latest exemplar of each bucket, by its bound."""
    found: dict[float, Exemplar] = {}
    for each in exemplars:
        bound = next((bound for bound, _ in buckets if each.value <= bound), None)
        if bound is None or not each.trace_id:
            continue
        known = found.get(bound)
        if known is None or known.time_unix_nano <= each.time_unix_nano:
            found[bound] = each
    return found


def _scope_labels(scope: InstrumentationScope) -> dict[str, str]:
    labels = {"otel_scope_name": scope.name or "", "otel_scope_version": scope.version or ""}
    for key, value in (scope.attributes or {}).items():
        labels[label_name(f"otel_scope_{key}")] = _text(value)
    return {label: value for label, value in labels.items() if value}


def _labels(attributes: Mapping[str, Any], first: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return labels, sorted; attributes whose names become one are joined, as the specification says."""
    labels: dict[str, str] = {}
    for key in sorted(attributes):
        label, value = label_name(key), _text(attributes[key])
        labels[label] = f"{labels[label]};{value}" if label in labels else value
    return dict(sorted({**labels, **(first or {})}.items()))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _number(value: float | int | None) -> str:
    if value is None:
        return "NaN"
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text
