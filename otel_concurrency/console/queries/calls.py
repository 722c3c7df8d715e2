"""Who calls whom: services, and the spans that cross from one to another."""

from __future__ import annotations

from dataclasses import dataclass

from otel_concurrency.console.queries.scope import Reader, Scope

MAX_CALLS = 100
MAX_SPANS = 200_000
"""Of so many of the newest entry spans the parents are looked up."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one service asked of another.

    Attributes:
        caller: Who asked.
        callee: Who was asked.
        count: How often.
        errors: How often what was asked failed.
        p95_s: 95th percentile of how long that took, s.
    """

    caller: str
    callee: str
    count: int
    errors: int
    p95_s: float


def calls(reader: Reader, scope: Scope) -> list[Call]:
    """Return the calls between services in the scope, the most frequent first."""
    sql = f"""
        WITH entries AS (
            SELECT trace_id, parent_span_id, resource_key, status, greatest(0, end_ns - start_ns) AS took
            FROM spans
            WHERE kind IN ('server', 'consumer') AND parent_span_id IS NOT NULL
                AND start_ns BETWEEN $from AND $to AND {scope.of_resource}
            ORDER BY id DESC LIMIT $spans),
        parents AS (
            SELECT trace_id, span_id, resource_key FROM spans
            WHERE end_ns >= $from AND start_ns <= $to)
        SELECT callers.service, callees.service, count(*), count(*) FILTER (entries.status = 'error'),
            quantile_cont(took, 0.95) / 1e9
        FROM entries
        JOIN parents ON parents.trace_id = entries.trace_id AND parents.span_id = entries.parent_span_id
        JOIN resources AS callers ON callers.resource_key = parents.resource_key
        JOIN resources AS callees ON callees.resource_key = entries.resource_key
        WHERE callers.service <> callees.service
        GROUP BY ALL ORDER BY count(*) DESC, 1, 2 LIMIT $calls
    """
    given = {**scope.parameters, "spans": MAX_SPANS, "calls": MAX_CALLS}
    return [Call(*row) for row in reader.query(sql, given)]
