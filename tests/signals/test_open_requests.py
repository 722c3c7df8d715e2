"""Requests that were open while something else held their loop are told for how long, and nobody else is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer

from otel_concurrency.hooks.loops.stalls import Stall
from otel_concurrency.signals import open_requests
from otel_concurrency.signals.open_requests import OpenRequests
from otel_concurrency.signals.stalls import StallReports

SECOND = 1_000_000_000
OVERLAP = "concurrency.stall_overlap"


@pytest.fixture
def requests() -> OpenRequests:
    return OpenRequests()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(requests: OpenRequests, exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(requests)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test")
    provider.shutdown()


def start(tracer: Tracer, name: str, at_s: int, kind: SpanKind = SpanKind.SERVER) -> trace.Span:
    return tracer.start_span(name, Context(), kind, start_time=at_s * SECOND)


def stall(began_s: int, took_s: int, culprit: trace.Span | None = None, **changes: Any) -> Stall:
    origin = None if culprit is None else trace.set_span_in_context(culprit)
    given = {"origin": origin, "cause": "blocked_call", "looks": 3} | changes
    return Stall(0, "uvloop", threading.get_ident(), began_s * SECOND, took_s * SECOND, **given)


def told(exporter: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: (span.attributes or {}).get(OVERLAP) for span in exporter.get_finished_spans()}


def test_all_that_are_open_but_the_culprits_are_told(
    tracer: Tracer, requests: OpenRequests, exporter: InMemorySpanExporter
) -> None:
    culprit, early, ended = (start(tracer, name, 10) for name in ("culprit", "early", "ended"))
    late, inner = start(tracer, "late", 22), start(tracer, "inner", 10, SpanKind.INTERNAL)
    message = start(tracer, "message", 10, SpanKind.CONSUMER)
    ended.end()
    reports = StallReports(requests=requests)
    each = stall(20, 1, culprit)
    reports.stall_seen(each)
    each.duration_ns = 5 * SECOND
    reports.stall_goes_on(each)
    for span in (culprit, early, late, inner, message):
        span.end()
    assert told(exporter) == {
        "culprit": None,
        "early": 5,
        "late": 3,
        "ended": None,
        "inner": None,
        "message": 5,
    }
    assert repr(requests) == "<OpenRequests [0 open]>"


def test_stalls_add_up_and_one_that_is_told_again_does_not(
    tracer: Tracer, requests: OpenRequests, exporter: InMemorySpanExporter
) -> None:
    reports, span = StallReports(requests=requests), start(tracer, "request", 10)
    for each in (stall(20, 1), stall(30, 2)):
        reports.stall_seen(each)
        reports.stall_goes_on(each)
        reports.stall_ended(each)
    span.end()
    assert told(exporter) == {"request": 3}


def test_who_comes_between_the_last_look_and_what_is_taken_for_the_end_is_not_told(
    tracer: Tracer, requests: OpenRequests, exporter: InMemorySpanExporter
) -> None:
    reports, seen, unseen = StallReports(requests=requests), stall(20, 5), stall(30, 5, looks=0)
    reports.stall_goes_on(seen)
    late = start(tracer, "late", 24)
    reports.stall_ended(seen)
    late.end()
    early = start(tracer, "early", 33)
    reports.stall_ended(unseen)
    early.end()
    assert told(exporter) == {"late": None, "early": 2}


def test_another_threads_loop_and_one_that_spins_hold_nobody_up(
    tracer: Tracer, requests: OpenRequests, exporter: InMemorySpanExporter
) -> None:
    reports, span = StallReports(requests=requests), start(tracer, "request", 10)
    elsewhere = stall(20, 1)
    elsewhere.thread_ident += 1
    for each in (elsewhere, stall(20, 1, cause="spin")):
        reports.stall_seen(each)
        reports.stall_ended(each)
    span.end()
    assert told(exporter) == {"request": None}


def test_the_open_ones_are_bounded_forgotten_in_a_child_and_not_taken_when_off(
    tracer: Tracer, requests: OpenRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_requests, "MAX_OPEN", 2)
    spans = [start(tracer, "request", 10) for _ in range(3)]
    assert repr(requests) == "<OpenRequests [2 open]>"
    requests.forget()
    requests.is_on = False
    spans.append(start(tracer, "request", 10))
    assert repr(requests) == "<OpenRequests [0 open]>"
    for span in spans:
        span.end()
