"""What tests ask the running stack: spans of Jaeger, series of Prometheus, records of Loki."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from otel_concurrency.stack.state import State

T = TypeVar("T")

# From a service's export to an answer of the query API; a second or two on an idle machine.
DEADLINE_S = 45.0
POLL_S = 0.2

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True, slots=True)
class Span:
    """A span as Jaeger returns it; ids in hex, `parent_id` empty for a root, attributes as text."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Series:
    """The last sample of a series: its labels, and its value or the count and sum of its histogram."""

    labels: dict[str, str]
    value: float | None = None
    count: float | None = None
    sum: float | None = None
    buckets: int = 0


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One measurement behind a series, with the span that it was made in."""

    series: dict[str, str]
    value: float
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """A log record as Loki returns it; `labels` holds its stream's and the record's own."""

    body: str
    trace_id: str
    span_id: str
    labels: dict[str, str] = field(default_factory=dict, compare=False)


class Backend:
    """A running stack, asked through its public interfaces."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.endpoints = state.endpoints

    def __repr__(self) -> str:
        return f"<Backend {self.endpoints}>"

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that Jaeger has so far; none if it does not know the trace."""
        answer = self._trace(trace_id)
        return _spans(answer) if answer is not None else []

    def events(self, trace_id: str, name: str) -> list[dict[str, str]]:
        """Return the attributes of the span events of that name in a trace that Jaeger has."""
        answer = self._trace(trace_id) or {"result": {"resourceSpans": []}}
        return [
            _attributes(event)
            for resource in answer["result"]["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
            for event in span.get("events", [])
            if event["name"] == name
        ]

    def links(self, trace_id: str) -> list[tuple[str, str]]:
        """Return the ids of each span of a trace that is linked, and of the span that it is linked to."""
        answer = self._trace(trace_id) or {"result": {"resourceSpans": []}}
        return [
            (span["spanId"], link["spanId"])
            for resource in answer["result"]["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
            for link in span.get("links", [])
        ]

    def traces(self, service: str, *, at_most: int = 1000) -> list[list[Span]]:
        """Return the traces of the last hour that have a span of `service`, in no order."""
        now_us = time.time_ns() // 1000
        query = {
            "service": service,
            "limit": at_most,
            "start": now_us - 3600_000_000,
            "end": now_us + 60_000_000,
        }
        return [_ui_spans(trace) for trace in self._get("jaeger", "/api/traces", query)["data"]]

    def series(self, query: str) -> list[Series]:
        """Evaluate a PromQL expression now."""
        rows = self._get("prometheus", "/api/v1/query", {"query": query})["data"]["result"]
        return [_series(row) for row in rows]

    def exemplars(self, query: str) -> list[Exemplar]:
        """Return the exemplars that Prometheus keeps for a selector, of the last hour."""
        now = time.time()
        rows = self._get(
            "prometheus", "/api/v1/query_exemplars", {"query": query, "start": now - 3600, "end": now + 60}
        )
        return [
            Exemplar(
                row["seriesLabels"], float(one["value"]), one["labels"]["trace_id"], one["labels"]["span_id"]
            )
            for row in rows["data"]
            for one in row["exemplars"]
        ]

    def records(self, trace_id: str) -> list[Record]:
        """Return the log records of a trace, the oldest first."""
        return self.lines(f'{{service_name=~".+"}} | trace_id="{trace_id}"')

    def lines(self, query: str) -> list[Record]:
        """Return what a query of logs finds in the last hour, the oldest first."""
        now_ns = time.time_ns()
        asked = {
            "query": query,
            "start": now_ns - 3600 * 10**9,
            "end": now_ns + 60 * 10**9,
            "limit": 5000,
            "direction": "forward",
        }
        streams = self._get("loki", "/loki/api/v1/query_range", asked)["data"]["result"]
        found = [(int(at), line, one["stream"]) for one in streams for at, line in one["values"]]
        return [
            Record(line, labels.get("trace_id", ""), labels.get("span_id", ""), labels)
            for _, line, labels in sorted(found, key=lambda one: one[0])
        ]

    def _trace(self, trace_id: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._get("jaeger", f"/api/v3/traces/{trace_id}")
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 404:
                    raise
            return None
        return answer

    def _get(self, endpoint: str, path: str, query: dict[str, Any] | None = None) -> Any:
        address = self.endpoints[endpoint] + path
        if query:
            address += "?" + urllib.parse.urlencode(query)
        with _open(address, timeout=10) as answer:
            return json.load(answer)


def eventually(claim: str, ask: Callable[[], T], holds: Callable[[T], bool] = bool) -> T:
    """Ask until the answer holds and return it.

    Raises:
        AssertionError: It did not within `DEADLINE_S`; tells the last answer.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not holds(answer := ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {DEADLINE_S:.0f} s: {claim}; the last answer was {answer!r}")
        time.sleep(POLL_S)
    return answer


def _spans(answer: dict[str, Any]) -> list[Span]:
    return [
        Span(
            service=_attributes(resource["resource"])["service.name"],
            name=span["name"],
            kind=KINDS[span["kind"]],
            trace_id=span["traceId"],
            span_id=span["spanId"],
            parent_id=span.get("parentSpanId", ""),
            attributes=_attributes(span),
        )
        for resource in answer["result"]["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _ui_spans(trace: dict[str, Any]) -> list[Span]:
    """Read a trace as Jaeger's user interface gets it: the one search that returns whole traces."""
    return [
        Span(
            service=trace["processes"][span["processID"]]["serviceName"],
            name=span["operationName"],
            kind=next(tag["value"] for tag in span["tags"] if tag["key"] == "span.kind"),
            trace_id=span["traceID"],
            span_id=span["spanID"],
            parent_id=next((one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"), ""),
            attributes={tag["key"]: str(tag["value"]) for tag in span["tags"]},
        )
        for span in trace["spans"]
    ]


def _attributes(owner: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: str(next(iter(one["value"].values()))) for one in owner.get("attributes", [])}


def _series(row: dict[str, Any]) -> Series:
    if "value" in row:
        return Series(row["metric"], value=float(row["value"][1]))
    histogram = row["histogram"][1]
    buckets = len(histogram.get("buckets", []))
    return Series(
        row["metric"], count=float(histogram["count"]), sum=float(histogram["sum"]), buckets=buckets
    )
