"""Spans and log records as trace events: the JSON that Perfetto and Chrome's tracing read, and back.

A track there holds slices that lie within one another; spans of one thread that merely overlap, as those of
an event loop's tasks do, are spread over as many tracks as that takes. Times are µs, which as floats are not
exact: a slice's arguments say the ns.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from otel_concurrency.console.attributes import to_json
from otel_concurrency.console.store import Store

MAX_SPANS = 200_000
"""The newest; what a browser still draws."""

MAX_TRACKS = 200
"""Of a thread; what still overlaps then is on the last one."""

Event = dict[str, Any]


def export_trace_events(store: Store, trace_id: str | None = None) -> Iterator[str]:
    """Yield the parts of one JSON document.

    Args:
        store: What to export.
        trace_id: Only this trace.
    """
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    yield ",\n".join(map(to_json, _events(store, trace_id)))
    yield "\n]}\n"


def _events(store: Store, trace_id: str | None) -> Iterator[Event]:
    only, given = ("", []) if trace_id is None else ("WHERE trace_id = ?", [trace_id])
    processes: dict[int, Event] = defaultdict(lambda: {"pid": len(processes) + 1, "name": "?"})
    for key, service, text in store.query("SELECT resource_key, service, attributes FROM resources"):
        name = f"{service} {json.loads(text).get('process.pid', '')}".strip()
        processes[key] = {"pid": len(processes) + 1, "name": name}
    tracks: dict[tuple[int, str], list[_Track]] = {}
    numbers = itertools.count(1)
    spans = store.query(
        "SELECT resource_key, trace_id, span_id, parent_span_id, name, kind, status, start_ns, end_ns, "
        f"attributes FROM (SELECT * FROM spans {only} ORDER BY id DESC LIMIT {MAX_SPANS}) "
        "ORDER BY start_ns, end_ns DESC",
        given,
    )
    for key, trace, span_id, parent_id, name, kind, status, start_ns, end_ns, text in spans:
        attributes = json.loads(text)
        pid = processes[key]["pid"]
        of_thread = tracks.setdefault((pid, str(attributes.get("thread.id"))), [])
        track = next((track for track in of_thread if track.takes(start_ns, end_ns)), None)
        if track is None and len(of_thread) == MAX_TRACKS:
            track = of_thread[-1]
        if track is None:
            label = str(attributes.get("thread.name", "spans"))
            track = _Track(next(numbers), f"{label} ({len(of_thread) + 1})" if of_thread else label)
            of_thread.append(track)
        track.open.append(max(start_ns, end_ns))
        ids = {"trace_id": trace, "span_id": span_id, "parent_span_id": parent_id}
        times = {"start_ns": str(start_ns), "end_ns": str(end_ns)}
        yield {
            "ph": "X",
            "name": name,
            "cat": f"{kind},error" if status == "error" else kind,
            "ts": start_ns / 1e3,
            "dur": max(0, end_ns - start_ns) / 1e3,
            "pid": pid,
            "tid": track.number,
            "args": attributes | ids | times,
        }
    logs = store.query(
        "SELECT resource_key, time_ns, severity, body, trace_id, span_id FROM "
        f"(SELECT * FROM logs {only} ORDER BY id DESC LIMIT {MAX_SPANS}) ORDER BY time_ns",
        given,
    )
    for key, time_ns, severity, body, trace, span_id in logs:
        said = json.loads(body)
        yield {
            "ph": "i",
            "s": "p",
            "name": said if isinstance(said, str) else to_json(said),
            "cat": f"log,{severity}",
            "ts": time_ns / 1e3,
            "pid": processes[key]["pid"],
            "tid": 0,
            "args": {"trace_id": trace, "span_id": span_id, "start_ns": str(time_ns)},
        }
    for process in processes.values():
        yield _naming("process_name", process["pid"], 0, process["name"])
    for (pid, _), of_thread in tracks.items():
        for track in of_thread:
            yield _naming("thread_name", pid, track.number, track.label)


class _Track:
    """A row of slices, each after the ones before it or within them; they come by their start."""

    def __init__(self, number: int, label: str) -> None:
        self.number = number
        self.label = label
        self.open: list[int] = []

    def takes(self, start_ns: int, end_ns: int) -> bool:
        while self.open and self.open[-1] <= start_ns:
            self.open.pop()
        return not self.open or end_ns <= self.open[-1]


def _naming(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}
