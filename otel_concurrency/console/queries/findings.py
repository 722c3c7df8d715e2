"""Findings: what was diagnosed, what held an event loop, and what nobody handled, from log events."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from otel_concurrency.console.queries.scope import Reader, Scope
from otel_concurrency.console.queries.trace import log_text
from otel_concurrency.signals import names

MAX_EVENTS = 5_000
MAX_FINDINGS = 200
KEPT_TRACES = 12
DIAGNOSIS = "concurrency.diagnosis."
QUIET = (names.SHUTDOWN_STARTED, names.SHUTDOWN_PROGRESS, names.SHUTDOWN_COMPLETED)
"""Events that are no finding."""


@dataclass(frozen=True, slots=True)
class Event:
    """A log event.

    Attributes:
        log_id: Its row.
        time_ns: When.
        service: Who.
        instance: Which process.
        name: Such as `asyncio.eventloop.stall.ended`.
        severity: Such as `WARN`.
        severity_number: As OpenTelemetry counts: 13 and more is a warning, 17 and more an error.
        text: What it says.
        trace_id: The trace it belongs to.
        span_id: The span in it.
        attributes: Its own.
    """

    log_id: int
    time_ns: int
    service: str
    instance: str
    name: str
    severity: str
    severity_number: int
    text: str
    trace_id: str | None
    span_id: str | None
    attributes: dict[str, Any]

    @property
    def function(self) -> str:
        """Return the culprit's function."""
        return str(self.attributes.get(names.CODE_FUNCTION_NAME) or "")

    @property
    def place(self) -> str:
        """Return file and line, where they are told."""
        path = self.attributes.get(names.CODE_FILE_PATH)
        return f"{path}:{self.attributes.get(names.CODE_LINE_NUMBER, '')}".rstrip(":") if path else ""


@dataclass(slots=True)
class Found:
    """Events that tell of the same thing.

    Attributes:
        key: What makes them the same; stands in URLs.
        kind: The event's name, or the rule that found it.
        last: The latest event.
        count: How many, those counted that were left out.
        first_ns: When the first one was.
        elapsed_s: Seconds that stalls took, all together.
        traces: Ids of traces that they belong to, the latest first.
        is_open: Whether a diagnosis still holds; of other findings none knows.
    """

    key: str
    kind: str
    last: Event
    count: int = 0
    first_ns: int = 0
    elapsed_s: float = 0.0
    traces: list[tuple[str, str]] = field(default_factory=list)
    is_open: bool | None = None

    @property
    def severity(self) -> str:
        """Return `error`, `warn` or `info`."""
        number = self.last.severity_number
        return "error" if number >= 17 else "warn" if number >= 13 else "info"


def events(
    reader: Reader, scope: Scope, prefix: str = "", limit: int = MAX_EVENTS, *, function: str = ""
) -> list[Event]:
    """Return log events in the scope, the latest first.

    Args:
        reader: The store.
        scope: What to look at.
        prefix: How their names begin.
        limit: At most so many.
        function: Only those whose culprit this is.
    """
    parameters = {**scope.parameters, "limit": limit, "prefix": prefix}
    claim = ""
    if function:
        claim = f"AND (logs.attributes->>'/{names.CODE_FUNCTION_NAME}') = $function"
        parameters["function"] = function
    sql = f"""
        SELECT id, time_ns, service, instance, event_name, severity, severity_number, body, trace_id, span_id,
            logs.attributes
        FROM logs JOIN resources USING (resource_key)
        WHERE event_name <> '' AND starts_with(event_name, $prefix) AND time_ns BETWEEN $from AND $to
            AND {scope.of_resource} {claim}
        ORDER BY time_ns DESC, id DESC LIMIT $limit
    """
    return [
        Event(
            log_id,
            time_ns,
            service,
            instance,
            name,
            severity,
            severity_number,
            log_text(body),
            trace_id,
            span_id,
            json.loads(told),
        )
        for (
            log_id,
            time_ns,
            service,
            instance,
            name,
            severity,
            severity_number,
            body,
            trace_id,
            span_id,
            told,
        ) in reader.query(sql, parameters)
    ]


def findings(reader: Reader, scope: Scope) -> list[Found]:
    """Return what was found in the scope: open and severe first."""
    found: dict[str, Found] = {}
    for event in events(reader, scope):
        if event.name in QUIET or event.name == names.STALL_STARTED:
            continue
        kind = _kind(event)
        key = _key(event, kind)
        one = found.get(key)
        if one is None:
            one = found[key] = Found(key, kind, event)
            if event.name.startswith(DIAGNOSIS):
                one.is_open = not event.name.endswith(".closed")
        one.count += 1 + _int(event.attributes.get(names.SUPPRESSED))
        one.first_ns = event.time_ns
        elapsed = event.attributes.get(names.STALL_ELAPSED)
        if isinstance(elapsed, int | float):
            one.elapsed_s += elapsed
        affected = event.attributes.get(f"{DIAGNOSIS}traces")
        for trace_id, span_id in [
            (event.trace_id, event.span_id or ""),
            *((str(it), "") for it in (affected if isinstance(affected, list) else ())),
        ]:
            is_new = all(trace_id != known for known, _ in one.traces)
            if trace_id and is_new and len(one.traces) < KEPT_TRACES:
                one.traces.append((trace_id, span_id))
    order = {"error": 0, "warn": 1, "info": 2}
    ranked = sorted(
        found.values(),
        key=lambda one: (one.is_open is not True, order[one.severity], -one.elapsed_s, -one.count, one.key),
    )
    return ranked[:MAX_FINDINGS]


def stall_marks(reader: Reader, scope: Scope, limit: int = 200) -> dict[tuple[str, str, str], list[Event]]:
    """Return the stalls that ended in the scope, by service, instance and loop."""
    marks: defaultdict[tuple[str, str, str], list[Event]] = defaultdict(list)
    for event in events(reader, scope, names.STALL_ENDED, limit):
        loop = str(event.attributes.get(names.EVENTLOOP_ID, ""))
        marks[event.service, event.instance, loop].append(event)
    return dict(marks)


def _kind(event: Event) -> str:
    if event.name.startswith(DIAGNOSIS):
        return str(event.attributes.get(f"{DIAGNOSIS}rule") or event.name)
    return event.name


def _key(event: Event, kind: str) -> str:
    attributes = event.attributes
    what = attributes.get(names.STALL_CAUSE) or attributes.get("error.type") or ""
    parts = (event.service, kind, event.function, str(what), event.place)
    if event.name.startswith(DIAGNOSIS):
        parts = (event.service, event.instance, kind, str(attributes.get(f"{DIAGNOSIS}subject")), "")
    return "|".join(parts)


def _int(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
