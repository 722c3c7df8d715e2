"""Any metric: which there are, by which attributes they can be split, and their exemplars."""

from __future__ import annotations

import json
from dataclasses import dataclass

from otel_concurrency.console.queries.scope import Reader, Scope, literal

MAX_METRICS = 1_000
MAX_KEYS = 40
MAX_EXEMPLARS = 200
MAX_EXEMPLAR_POINTS = 400


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that was told in the scope.

    Attributes:
        name: Its name.
        unit: UCUM.
        kind: `sum`, `gauge`, `histogram`, `exponential_histogram` or `summary`.
        is_monotonic: Whether it only grows: a counter.
        description: What its sender says of it.
        series: How many combinations of attributes.
    """

    name: str
    unit: str
    kind: str
    is_monotonic: bool
    description: str
    series: int

    @property
    def has_distribution(self) -> bool:
        """Whether it is a histogram of either kind."""
        return self.kind.endswith("histogram")


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One measurement that leads to its trace."""

    time_ns: int
    value: float
    trace_id: str
    span_id: str
    service: str


def metrics(reader: Reader, scope: Scope) -> list[Metric]:
    """Return the metrics that were told in the scope, by name."""
    sql = f"""
        SELECT name, any_value(unit), any_value(kind), coalesce(bool_or(monotonic), false),
            any_value(description), count(DISTINCT hash(attributes, resource_key))
        FROM metric_points WHERE time_ns BETWEEN $from AND $to AND {scope.of_resource}
        GROUP BY name ORDER BY name LIMIT $metrics
    """
    return [Metric(*row) for row in reader.query(sql, {**scope.parameters, "metrics": MAX_METRICS})]


def attribute_keys(reader: Reader, scope: Scope, metric: str) -> list[str]:
    """Return the attributes of a metric's points."""
    sql = f"""
        SELECT DISTINCT unnest(json_keys(attributes)) AS key FROM (
            SELECT DISTINCT attributes FROM metric_points
            WHERE name = {literal(metric)} AND time_ns BETWEEN $from AND $to AND {scope.of_resource}
            LIMIT 2000)
        ORDER BY key LIMIT $keys
    """
    return [row[0] for row in reader.query(sql, {**scope.parameters, "keys": MAX_KEYS})]


def exemplars(reader: Reader, scope: Scope, metric: str) -> list[Exemplar]:
    """Return the latest exemplars of a metric that have a trace, each once."""
    sql = f"""
        SELECT service, exemplars FROM metric_points JOIN resources USING (resource_key)
        WHERE name = {literal(metric)} AND exemplars <> '[]' AND time_ns BETWEEN $from AND $to
            AND {scope.of_resource}
        ORDER BY time_ns DESC LIMIT $points
    """
    found: dict[tuple[str, str, int], Exemplar] = {}
    for service, told in reader.query(sql, {**scope.parameters, "points": MAX_EXEMPLAR_POINTS}):
        for each in json.loads(told):
            trace_id, span_id = each.get("trace_id"), each.get("span_id") or ""
            value = each.get("value")
            in_range = scope.start_ns <= each.get("time_ns", 0) <= scope.end_ns
            if trace_id and in_range and isinstance(value, int | float) and len(found) < MAX_EXEMPLARS:
                key = (trace_id, span_id, each["time_ns"])
                found[key] = Exemplar(each["time_ns"], float(value), trace_id, span_id, service)
    return sorted(found.values(), key=lambda it: it.time_ns)
