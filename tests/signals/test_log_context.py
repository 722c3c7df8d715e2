"""`add_log_context` in structlog: what its events say of the place that logged."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from io import StringIO
from typing import Any

import structlog
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

import otel_concurrency

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("app")
MAIN = {"thread.id": threading.get_ident(), "thread.name": "MainThread", "process.pid": os.getpid()}
PROCESSORS = [otel_concurrency.add_log_context, structlog.processors.JSONRenderer()]


def printing(out: StringIO) -> Any:
    return structlog.wrap_logger(structlog.PrintLogger(out), processors=PROCESSORS)


def said(out: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_says_where_it_was_logged() -> None:
    out = StringIO()

    async def work() -> trace.SpanContext:
        otel_concurrency.set_request_id("order-7")
        with TRACER.start_as_current_span("work") as span:
            printing(out).info("packs", item=3)
            return span.get_span_context()

    async def main() -> trace.SpanContext:
        return await asyncio.create_task(work(), name="packing")

    span = asyncio.run(main())
    printing(out).info("outside")
    assert said(out) == [
        {
            **MAIN,
            "event": "packs",
            "item": 3,
            "trace_id": trace.format_trace_id(span.trace_id),
            "span_id": trace.format_span_id(span.span_id),
            "asyncio.task.name": "packing",
            "request_id": "order-7",
        },
        {**MAIN, "event": "outside"},
    ]


def test_what_the_event_says_already_stays() -> None:
    out = StringIO()
    token = context.attach(context.Context())
    otel_concurrency.set_request_id("order-7")
    printing(out).info("packs", request_id="mine", **{"thread.name": "mine, too"})
    context.detach(token)
    assert said(out) == [{**MAIN, "event": "packs", "request_id": "mine", "thread.name": "mine, too"}]


def test_through_the_standard_library_it_is_the_same() -> None:
    out = StringIO()
    logger = logging.Logger("app")
    logger.addHandler(logging.StreamHandler(out))
    bound = structlog.wrap_logger(logger, processors=PROCESSORS, wrapper_class=structlog.stdlib.BoundLogger)
    with TRACER.start_as_current_span("work") as span:
        bound.warning("packs")
    assert said(out) == [
        {
            **MAIN,
            "event": "packs",
            "trace_id": trace.format_trace_id(span.get_span_context().trace_id),
            "span_id": trace.format_span_id(span.get_span_context().span_id),
        }
    ]
