"""Requests by route: how long they took, and where their time went, as their server spans tell."""

from __future__ import annotations

from dataclasses import dataclass

from otel_concurrency.console.queries.scope import Reader, Scope, attribute
from otel_concurrency.signals import names

MAX_SPANS = 50_000
"""Of the newest server spans so many are read: their attributes are JSON."""

MAX_ROUTES = 30
PARTS = {
    "busy": names.REQUEST_BUSY_TIME,
    "scheduled": names.REQUEST_SCHEDULED_TIME,
    "lock": names.REQUEST_LOCK_WAIT,
    "db pool": names.REQUEST_DB_POOL_WAIT,
    "http pool": names.REQUEST_HTTP_POOL_WAIT,
    "executor": names.REQUEST_EXECUTOR_WAIT,
    "stall of others": names.STALL_OVERLAP,
}


@dataclass(frozen=True, slots=True)
class Route:
    """The requests of one route.

    Attributes:
        service: Who answered.
        name: The server span's.
        count: How many.
        errors: How many with an error status, or answered 5xx.
        p50_s: Median duration.
        p99_s: 99th percentile.
        parts: Mean seconds a request of each of `PARTS`, in their order.
        slowest: Trace id of the slowest.
    """

    service: str
    name: str
    count: int
    errors: int
    p50_s: float
    p99_s: float
    parts: tuple[float, ...]
    slowest: str


def routes(reader: Reader, scope: Scope) -> list[Route]:
    """Return the routes that were asked for, those that took most time first."""
    parts = ", ".join(
        f"avg(coalesce(TRY_CAST({attribute(key)} AS DOUBLE), 0)) AS part{at}"
        for at, key in enumerate(PARTS.values())
    )
    answer = f"coalesce({attribute('http.response.status_code', 'served.attributes')}, '')"
    sql = f"""
        WITH served AS (
            SELECT resource_key, name, status, attributes, trace_id, greatest(0, end_ns - start_ns) AS took
            FROM spans WHERE kind = 'server' AND start_ns BETWEEN $from AND $to AND {scope.of_resource}
            ORDER BY id DESC LIMIT $spans)
        SELECT service, name, count(*),
            count(*) FILTER (status = 'error' OR starts_with({answer}, '5')),
            quantile_cont(took, 0.5) / 1e9, quantile_cont(took, 0.99) / 1e9, arg_max(trace_id, took), {parts}
        FROM (SELECT served.*, service FROM served JOIN resources USING (resource_key)) AS served
        GROUP BY service, name ORDER BY sum(took) DESC, service, name LIMIT $routes
    """
    given = {**scope.parameters, "spans": MAX_SPANS, "routes": MAX_ROUTES}
    return [
        Route(service, name, count, errors, p50, p99, tuple(parts), slowest)
        for service, name, count, errors, p50, p99, slowest, *parts in reader.query(sql, given)
    ]
