"""The format of trace events, as Perfetto's trace processor reads it, checked in full.

Source: "Trace Event Format" (Chrome), and `json_trace_tokenizer` and `json_trace_parser` of Perfetto: what
these drop, or count among the errors of an import, is an error here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

NUMBER = (int, float)
NEEDS = {  # by phase: further fields, and their types
    "X": {"dur": NUMBER, "cat": str},
    "b": {"id": str, "cat": str},
    "e": {"id": str, "cat": str},
    "C": {"args": dict},
    "M": {"args": dict},
    "i": {"s": str},
}
META = {"process_name": ("name", str), "thread_name": ("name", str), "thread_sort_index": ("sort_index", int)}


def errors_of(trace: Any) -> list[str]:
    """Return what is wrong with a trace."""
    errors: list[str] = []
    trace = json.loads(json.dumps(trace, allow_nan=False))
    if set(trace) - {"traceEvents", "displayTimeUnit", "otherData", "metadata"}:
        errors.append("unknown fields at the top")
    if trace.get("displayTimeUnit") not in (None, "ms", "ns"):
        errors.append("displayTimeUnit")
    for position, event in enumerate(trace["traceEvents"]):
        errors += (f"{position}: {error} in {event}" for error in _errors_of_event(event))
    if errors:
        return errors
    return _errors_of_slices(trace["traceEvents"]) + _errors_of_async(trace["traceEvents"])


def _errors_of_event(event: dict[str, Any]) -> list[str]:
    errors = []
    common = {"ph": str, "name": str, "pid": int, "tid": int, "ts": NUMBER}
    phase = event.get("ph")
    if phase not in NEEDS:
        return [f"unknown phase {phase}"]
    for name, kind in (common | NEEDS[phase]).items():
        if not isinstance(event.get(name), kind) or isinstance(event.get(name), bool):
            errors.append(f"{name} is {event.get(name)!r}")
    if errors:
        return errors
    if event["ts"] < 0 or event.get("dur", 0) < 0:
        errors.append("a time before the beginning")
    if phase == "C" and not all(isinstance(value, NUMBER) for value in event["args"].values()):
        errors.append("a counter of no number")
    if phase == "M":
        name, kind = META.get(event["name"], ("", str))
        if not isinstance(event["args"].get(name), kind):
            errors.append("unknown metadata")
    if phase == "i" and event["s"] not in ("g", "p", "t"):
        errors.append("unknown scope")
    return errors


def _errors_of_slices(events: list[dict[str, Any]]) -> list[str]:
    """Slices of one track must lie one after the other, or one in the other; and the track has a name."""
    errors = []
    named = {event["tid"] for event in events if event["ph"] == "M" and event["name"] == "thread_name"}
    tracks: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for track, slices in tracks.items():
        if track not in named:
            errors.append(f"track {track} has no name")
        open_until: list[float] = []
        for begin, end in sorted(slices, key=lambda each: (each[0], -each[1])):
            while open_until and open_until[-1] <= begin + 0.001:
                open_until.pop()
            if open_until and end > open_until[-1] + 0.001:
                errors.append(f"slices overlap on track {track} at {begin}")
            open_until.append(end)
    return errors


def _errors_of_async(events: list[dict[str, Any]]) -> list[str]:
    """Of one category and id, what begins last ends first; in the order of the file, times never fall."""
    errors = []
    stacks: dict[tuple[str, str], list[str]] = defaultdict(list)
    last = 0.0
    for event in events:
        if event["ph"] == "M":
            continue
        if event["ts"] < last:
            errors.append(f"time falls at {event['ts']}")
        last = event["ts"]
        key = (event.get("cat", ""), event.get("id", ""))
        if event["ph"] == "b":
            stacks[key].append(event["name"])
        elif event["ph"] == "e" and (not stacks[key] or stacks[key].pop() != event["name"]):
            errors.append(f"{key} ends {event['name']}, which is not what began last")
    return errors + [f"{key} never ends" for key, stack in stacks.items() if stack]
