"""Trace events, as Perfetto and Chrome's tracing read them, as spans.

Complete events (`X`) and pairs (`B` and `E`, `b` and `e`) become spans, under the slice of their track that
they lie in; what is neither is left out. Those of our own export say their ids and exact times.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_concurrency.console.attributes import HIGHEST_NS
from otel_concurrency.console.span_rows import KINDS

EPOCH_US = 1e15
"""In 2001: earlier times are no times of day, but since some start."""

LAST_US = HIGHEST_NS / 1e3

_IDS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_OWN = {*_IDS, "start_ns", "end_ns"}


@dataclass(slots=True)
class _Slice:
    name: str
    category: str
    process: Any
    track: Any
    start_us: float
    end_us: float
    args: dict[str, Any] = field(default_factory=dict)


def spans_of(events: list[Any]) -> ExportTraceServiceRequest:
    """Return the spans of a document's events; ends now, what says no time of day."""
    slices = sorted(_slices(events), key=lambda it: (it.start_us, -it.end_us))
    names = _names(events)
    latest = max((it.end_us for it in slices), default=0.0)
    shift_ns = 0 if latest > EPOCH_US else time.time_ns() - int(latest * 1e3)
    request = ExportTraceServiceRequest()
    scopes: dict[str, Any] = {}
    open_slices: dict[tuple[str, str], list[tuple[float, bytes, bytes]]] = {}
    digest = hashlib.blake2b(repr((len(slices), latest, shift_ns)).encode(), digest_size=16)
    for number, it in enumerate(slices):
        process, track = str(it.process), str(it.track)
        if process not in scopes:
            described = request.resource_spans.add()
            service = names.get((process, None), f"process {process}")
            described.resource.attributes.append(_pair("service.name", service))
            scopes[process] = described.scope_spans.add()
        around = open_slices.setdefault((process, track), [])
        while around and around[-1][0] < it.end_us:
            around.pop()
        own = {key: _id(it.args.get(key), size) for key, size in _IDS.items()}
        _, trace_id, parent_id = around[-1] if around else (0.0, digest.digest(), b"")
        span = scopes[process].spans.add(
            name=it.name,
            trace_id=own["trace_id"] or trace_id,
            span_id=own["span_id"] or hashlib.blake2b(trace_id + b"%d" % number, digest_size=8).digest(),
            parent_span_id=own["parent_span_id"] or (b"" if own["span_id"] else parent_id),
            start_time_unix_nano=_ns(it.args.get("start_ns"), int(it.start_us * 1e3) + shift_ns),
            end_time_unix_nano=_ns(it.args.get("end_ns"), int(it.end_us * 1e3) + shift_ns),
        )
        kind, _, problem = it.category.partition(",")
        span.kind = KINDS.index(kind) if kind in KINDS else 1
        span.status.code = 2 if problem == "error" else 0
        span.attributes.extend(_pair(key, value) for key, value in it.args.items() if key not in _OWN)
        if "thread.name" not in it.args:
            span.attributes.append(_pair("thread.name", names.get((process, track), track)))
        around.append((it.end_us, span.trace_id, span.span_id))
    return request


def _slices(events: list[Any]) -> Iterator[_Slice]:
    begun: dict[tuple[str, str], list[_Slice]] = {}
    for event in events:
        if not isinstance(event, dict) or not _is_time(event.get("ts")):
            continue
        phase, at = event.get("ph"), float(event["ts"])
        args = event.get("args")
        it = _Slice(
            str(event.get("name", "")),
            str(event.get("cat", "")),
            event.get("pid"),
            event.get("tid"),
            at,
            at,
            args if isinstance(args, dict) else {},
        )
        if phase in ("b", "e"):
            it.track = f"{it.category} {event.get('id')}"
        track = (str(it.process), str(it.track))
        if phase == "X":
            took = event.get("dur", 0)
            it.end_us = at + max(0.0, float(took)) if _is_time(took) else at
            yield it
        elif phase in ("B", "b"):
            begun.setdefault(track, []).append(it)
        elif phase in ("E", "e") and begun.get(track):
            started = begun[track].pop()
            started.end_us = max(at, started.start_us)
            started.args |= it.args
            yield started


def _names(events: list[Any]) -> dict[tuple[str, str | None], str]:
    """Return what processes, under no track, and tracks are called."""
    found: dict[tuple[str, str | None], str] = {}
    for event in events:
        if isinstance(event, dict) and event.get("ph") == "M" and isinstance(event.get("args"), dict):
            name, process = str(event["args"].get("name", "")), str(event.get("pid"))
            if event.get("name") == "process_name":
                found[process, None] = name
            elif event.get("name") == "thread_name":
                found[process, str(event.get("tid"))] = name
    return found


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LAST_US  # NaN is not


def _ns(exact: object, about: int) -> int:
    if isinstance(exact, str) and exact.isascii() and exact.isdecimal() and len(exact) < 20:
        return min(int(exact), HIGHEST_NS)
    return min(max(0, about), HIGHEST_NS)


def _id(value: object, size: int) -> bytes:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""
    return found if len(found) == size and any(found) else b""


def _pair(key: str, value: Any) -> KeyValue:
    if isinstance(value, bool):
        held = AnyValue(bool_value=value)
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        held = AnyValue(int_value=value)
    elif isinstance(value, float):
        held = AnyValue(double_value=value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        held = AnyValue(string_value=text.encode(errors="replace").decode())
    return KeyValue(key=key.encode(errors="replace").decode(), value=held)
