"""What happened side by side: spans in the lanes of their tasks, and stalls in those of their loops."""

from __future__ import annotations

import json
from dataclasses import dataclass

from otel_concurrency.console.queries.findings import Event, events
from otel_concurrency.console.queries.scope import Reader, Scope, attribute
from otel_concurrency.signals import names

MAX_SLICES = 2_500
"""Of more spans the longest are shown."""

MAX_LANES = 150


@dataclass(frozen=True, slots=True)
class Piece:
    """A span in its lane.

    Attributes:
        service: Who made it.
        pid: Its process, as far as it is known.
        thread: The thread it was started on.
        task: The task that started it, or whose span it is.
        name: Its name.
        trace_id: Its trace.
        span_id: Its id.
        start_ns: Its start.
        end_ns: Its end.
        is_error: Whether its status says so.
    """

    service: str
    pid: str
    thread: str
    task: str
    name: str
    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    is_error: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """A window.

    Attributes:
        pieces: Spans, the longest `MAX_SLICES`.
        left_out: How many more there were.
        stalls: Stalls that were open in it.
    """

    pieces: list[Piece]
    left_out: int
    stalls: list[Event]


def timeline(reader: Reader, scope: Scope) -> Timeline:
    """Return what overlaps the scope's range."""
    claims = f"start_ns <= $to AND end_ns >= $from AND {scope.of_resource}"
    sql = f"""
        SELECT service, resources.attributes, {_of(names.THREAD_NAME)}, {_of(names.TASK_NAME)}, spans.name,
            trace_id, span_id, start_ns, end_ns, status = 'error'
        FROM (
            SELECT * FROM spans WHERE {claims} ORDER BY end_ns - start_ns DESC, id LIMIT $slices) AS spans
        JOIN resources USING (resource_key) ORDER BY start_ns
    """
    pieces = []
    for service, resource, *rest in reader.query(sql, {**scope.parameters, "slices": MAX_SLICES}):
        pid = json.loads(resource).get("process.pid")
        pieces.append(Piece(service, str(pid or ""), *rest))
    left_out = 0
    if len(pieces) == MAX_SLICES:
        every = reader.query(f"SELECT count(*) FROM spans WHERE {claims}", scope.parameters)[0][0]
        left_out = every - len(pieces)
    stalls = events(reader, scope, names.STALL_ENDED, 500)
    return Timeline(pieces, left_out, stalls)


def _of(key: str) -> str:
    return f"coalesce({attribute(key, 'spans.attributes')}, '')"
