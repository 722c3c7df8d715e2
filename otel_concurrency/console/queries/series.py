"""Metrics over time: what counters grew by, and what gauges said, in steps of a scope's range."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from otel_concurrency.console.distribution import Distribution
from otel_concurrency.console.queries.difference import difference
from otel_concurrency.console.queries.scope import SECOND_NS, Reader, Scope, attribute, literal

LOOK_BACK_NS = 150 * SECOND_NS
"""How long before the range the point may be from which a counter's growth in it is measured."""

MAX_ROWS = 20_000
STEPS = 60
"""Into how many steps a range is divided."""

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """What a metric did in a step.

    Attributes:
        service: Who.
        instance: Which process.
        labels: The attributes asked for, in that order; empty where a point lacks one.
        step: Which step of the range, from 0.
        value: Growth of a counter; the last value of anything else.
    """

    service: str
    instance: str
    labels: Labels
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Spread:
    """What a histogram took in during a step."""

    service: str
    instance: str
    labels: Labels
    step: int
    spread: Distribution


def fitting_steps(reader: Reader, scope: Scope, metric: str, most: int = STEPS) -> int:
    """Return into how many steps to divide the range so that each holds a collection of a metric.

    With steps shorter than the interval of collection, curves would have holes, and heat-maps stripes.
    """
    sql = f"""
        WITH told AS (
            SELECT resource_key, time_ns FROM metric_points
            WHERE name = {literal(metric)} AND time_ns BETWEEN $from AND $to AND {scope.of_resource}
            GROUP BY resource_key, time_ns),
        gaps AS (
            SELECT time_ns - lag(time_ns) OVER (PARTITION BY resource_key ORDER BY time_ns) AS gap FROM told)
        SELECT quantile_cont(gap, 0.9) FROM gaps WHERE gap > 0
    """
    gap = reader.query(sql, scope.parameters)[0][0]
    if not gap:
        return most
    return max(4, min(most, int((scope.end_ns - scope.start_ns) / (gap * 1.1))))


def step_ns(scope: Scope, steps: int = STEPS) -> int:
    """Return the length of a step."""
    return max(1, (scope.end_ns - scope.start_ns) // steps + 1)


def growth(
    reader: Reader, scope: Scope, metric: str, by: Sequence[str] = (), *, steps: int = STEPS
) -> list[Value]:
    """Return by how much a counter grew in each step; of series that began before, from their last point.

    Args:
        reader: The store.
        scope: What to look at.
        metric: Its name.
        by: Attributes to keep apart.
        steps: Into how many steps the range is divided; 1 gives totals.
    """
    return _values(
        reader,
        scope,
        metric,
        by,
        steps,
        """
        CASE WHEN temporality = 'delta' THEN value
            ELSE value - coalesce(lag(value) OVER series, CASE WHEN start_ns >= $from THEN 0 END) END
        """,
        "sum(greatest(0, told))",
    )


def levels(
    reader: Reader, scope: Scope, metric: str, by: Sequence[str] = (), *, steps: int = STEPS
) -> list[Value]:
    """Return what a gauge, or an up-down counter, said last in each step; equal labels add up."""
    rows = _values(reader, scope, metric, ("", *by), steps, "value", "arg_max(told, time_ns)", series=True)
    added: dict[tuple[str, str, Labels, int], float] = {}
    for row in rows:
        key = (row.service, row.instance, row.labels[1:], row.step)
        added[key] = added.get(key, 0.0) + row.value
    return [Value(*key, value) for key, value in added.items()]


def _values(
    reader: Reader,
    scope: Scope,
    metric: str,
    by: Sequence[str],
    steps: int,
    told: str,
    fold: str,
    *,
    series: bool = False,
) -> list[Value]:
    keys = [
        "metric_points.attributes::VARCHAR"
        if series and not key
        else f"coalesce({attribute(key, 'metric_points.attributes')}, '')"
        for key in by
    ]
    columns = "".join(f", {key} AS label{at}" for at, key in enumerate(keys))
    labels = "".join(f", label{at}" for at in range(len(keys)))
    falling = "".join(f", label{at} DESC" for at in range(len(keys)))
    sql = f"""
        WITH points AS (
            SELECT resource_key, time_ns{columns}, {told} AS told FROM metric_points
            WHERE name = {literal(metric)} AND time_ns BETWEEN $from - $back AND $to AND {scope.of_resource}
            WINDOW series AS (
                PARTITION BY resource_key, scope_key, metric_points.attributes, start_ns
                ORDER BY time_ns, id))
        SELECT service, instance{labels}, (time_ns - $from) // $step AS step, {fold}
        FROM points JOIN resources USING (resource_key)
        WHERE time_ns >= $from AND told IS NOT NULL
        GROUP BY service, instance{labels}, step
        ORDER BY step DESC, service DESC, instance DESC{falling} LIMIT $rows
    """
    given = {**scope.parameters, "back": LOOK_BACK_NS, "step": step_ns(scope, steps), "rows": MAX_ROWS}
    rows = reader.query(sql, given)
    rows.reverse()
    return [Value(row[0], row[1], tuple(row[2:-2]), int(row[-2]), float(row[-1])) for row in rows]


def spreads(
    reader: Reader, scope: Scope, metric: str, by: Sequence[str] = (), *, steps: int = 1
) -> list[Spread]:
    """Return what a histogram took in during each step."""
    keys = [f"coalesce({attribute(key, 'attributes')}, '')" for key in by]
    labels = "".join(f", {key}" for key in keys)
    # Of a cumulative series the last point of each step; of a delta series all.
    sql = f"""
        WITH points AS (
            SELECT *, CASE WHEN time_ns < $from THEN -1 ELSE (time_ns - $from) // $step END AS step
            FROM metric_points
            WHERE name = {literal(metric)} AND time_ns BETWEEN $from - $back AND $to
                AND distribution IS NOT NULL AND {scope.of_resource}),
        told AS (
            SELECT *, hash(resource_key, scope_key, attributes, start_ns) AS series FROM points
            QUALIFY temporality = 'delta' OR row_number() OVER (
                PARTITION BY resource_key, scope_key, attributes, start_ns, step
                ORDER BY time_ns DESC, id DESC) = 1)
        SELECT resource_key, series, temporality, start_ns >= $from, step, value_count, value_sum, value_min,
            value_max, distribution{labels}
        FROM told ORDER BY time_ns DESC LIMIT $rows
    """
    given = {**scope.parameters, "back": LOOK_BACK_NS, "step": step_ns(scope, steps), "rows": MAX_ROWS}
    rows = reader.query(sql, given)
    rows.reverse()
    who = {
        key: (service, instance)
        for key, service, instance in reader.query("SELECT resource_key, service, instance FROM resources")
    }
    merged: dict[tuple[str, str, Labels, int], Distribution] = {}
    before: dict[int, tuple[int, float, dict[str, object]]] = {}
    for resource, series, temporality, is_new, step, count, total, low, high, told, *label in rows:
        buckets = json.loads(told)
        now = (count or 0, total or 0.0, buckets)
        if temporality == "cumulative":
            earlier = before.get(series)
            before[series] = now
            if earlier is None and not is_new:
                continue  # nobody knows what it held when the range began
            if earlier is not None:
                now = (now[0] - earlier[0], now[1] - earlier[1], difference(now[2], earlier[2]))
        if step < 0 or now[0] <= 0:
            continue
        key = (*who.get(resource, ("", "")), tuple(label), int(step))
        merged.setdefault(key, Distribution()).add(now[0], now[1], low, high, now[2])
    return [Spread(*key, spread) for key, spread in merged.items()]
