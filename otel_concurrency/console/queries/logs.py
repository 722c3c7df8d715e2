"""Log records: a page of them, how many there were over time, and one with all that it tells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from otel_concurrency.console.queries.scope import Reader, Scope
from otel_concurrency.console.queries.series import STEPS, step_ns
from otel_concurrency.console.queries.trace import log_text

MAX_RECORDS = 300
MAX_TEXT = 2_000
SEVERITIES = {"debug": 5, "info": 9, "warn": 13, "error": 17}
"""The lowest severity number of each."""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which records.

    Attributes:
        text: Part of the body, of attributes, or of the event's name; a trace id is one of a trace.
        severity: One of `SEVERITIES` or more severe; empty for all.
        only_events: Only those that have an event name.
        before: Only rows older than this id, for the next page; 0 for the newest.
    """

    text: str = ""
    severity: str = ""
    only_events: bool = False
    before: int = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """A record in the list.

    Attributes:
        log_id: Its row.
        time_ns: When.
        service: Who.
        severity: Such as `INFO`.
        severity_number: As OpenTelemetry counts.
        event: Its event name, or empty.
        text: What it says, at most `MAX_TEXT` characters.
        trace_id: Its trace, if any.
        span_id: Its span.
    """

    log_id: int
    time_ns: int
    service: str
    severity: str
    severity_number: int
    event: str
    text: str
    trace_id: str | None
    span_id: str | None


@dataclass(frozen=True, slots=True)
class WholeLog:
    """A record with all that it tells."""

    line: LogLine
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str
    instance: str


_LINE = """logs.id, time_ns, service, severity, severity_number, event_name, body, trace_id, span_id"""


def logs(
    reader: Reader, scope: Scope, wanted: LogFilter = LogFilter(), limit: int = MAX_RECORDS
) -> list[LogLine]:
    """Return records in the scope, the newest first."""
    claims, parameters = _claims(scope, wanted)
    if wanted.before:
        claims += " AND logs.id < $before"
        parameters["before"] = wanted.before
    sql = f"""
        SELECT {_LINE} FROM logs JOIN resources USING (resource_key) WHERE {claims}
        ORDER BY time_ns DESC, logs.id DESC LIMIT $limit
    """
    return [_line(row) for row in reader.query(sql, {**parameters, "limit": limit})]


def log_counts(
    reader: Reader, scope: Scope, wanted: LogFilter = LogFilter(), steps: int = STEPS
) -> dict[str, list[float | None]]:
    """Return how many records there were in each step, by severity."""
    claims, parameters = _claims(scope, wanted)
    sql = f"""
        SELECT severity_number, (time_ns - $from) // $step, count(*) FROM logs WHERE {claims} GROUP BY ALL
    """
    counts: dict[str, list[float | None]] = {}
    for number, step, count in reader.query(sql, {**parameters, "step": step_ns(scope, steps)}):
        of = counts.setdefault(severity_name(number), [0.0] * steps)
        of[step] = (of[step] or 0.0) + count
    return {name: counts[name] for name in ("error", "warn", "info", "debug", "other") if name in counts}


def one_log(reader: Reader, log_id: int) -> WholeLog | None:
    """Return a record; none where it is not stored."""
    rows = reader.query(
        f"""
        SELECT {_LINE}, logs.attributes, resources.attributes, scopes.name, instance
        FROM logs JOIN resources USING (resource_key) JOIN scopes USING (scope_key) WHERE logs.id = ?
        """,
        [log_id],
    )
    if not rows:
        return None
    *line, attributes, resource, scope, instance = rows[0]
    return WholeLog(
        _line(tuple(line), MAX_TEXT * 50), json.loads(attributes), json.loads(resource), scope, instance
    )


def severity_name(number: int) -> str:
    """Return the kind of a severity number."""
    return next((name for name, least in reversed(SEVERITIES.items()) if number >= least), "other")


def _claims(scope: Scope, wanted: LogFilter) -> tuple[str, dict[str, object]]:
    claims = ["time_ns BETWEEN $from AND $to", scope.of_resource]
    parameters = scope.parameters
    if wanted.text:
        claims.append(
            "(contains(lower(body::VARCHAR), lower($text))"
            " OR contains(lower(logs.attributes::VARCHAR), lower($text))"
            " OR contains(event_name, $text) OR trace_id = lower($text))"
        )
        parameters["text"] = wanted.text
    if wanted.severity in SEVERITIES:
        claims.append("severity_number >= $severity")
        parameters["severity"] = SEVERITIES[wanted.severity]
    if wanted.only_events:
        claims.append("event_name <> ''")
    return " AND ".join(claims), parameters


def _line(row: tuple[Any, ...], most: int = MAX_TEXT) -> LogLine:
    log_id, time_ns, service, severity, number, event, body, trace_id, span_id = row
    text = log_text(body)[:most]
    return LogLine(log_id, time_ns, service, severity, number, event, text, trace_id, span_id)
