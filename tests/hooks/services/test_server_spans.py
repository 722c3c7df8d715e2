"""A request begins outside of the span that the process was started with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation import asgi, utils
from opentelemetry.propagators.textmap import default_getter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from otel_concurrency.hooks.services.server_spans import ServerSpanHook

NAME = "_start_internal_or_server_span"
BASE = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(1)))
OTHER = trace.NonRecordingSpan(trace.SpanContext(3, 4, False, trace.TraceFlags(1)))
HEADERS = {"traceparent": f"00-{5:032x}-{6:016x}-01"}
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")


@pytest.fixture
def hook() -> Iterator[ServerSpanHook]:
    before = vars(utils)[NAME], vars(asgi)[NAME]
    hook = ServerSpanHook(BASE)
    hook.install()
    yield hook
    hook.remove()
    assert (vars(utils)[NAME], vars(asgi)[NAME]) == before


@pytest.fixture(autouse=True)
def inside_the_base() -> Iterator[None]:
    token = context.attach(trace.set_span_in_context(BASE))
    yield
    assert trace.get_current_span() is BASE
    context.detach(token)


def request(headers: dict[str, str], start: Callable[..., Any] | None = None) -> tuple[Any, ...]:
    """Serve a request as the instrumentors do; return its kind, its trace and its parent's span id."""
    span, token = (start or vars(asgi)[NAME])(tracer, "GET", None, headers, default_getter)
    span.end()
    if token is not None:
        context.detach(token)
    return span.kind, span.context.trace_id, span.parent and span.parent.span_id


def test_a_request_is_a_server_span_of_whom_its_headers_name(hook: ServerSpanHook) -> None:
    assert request(HEADERS) == (SpanKind.SERVER, 5, 6)
    assert request(HEADERS, vars(utils)[NAME]) == (SpanKind.SERVER, 5, 6)


def test_a_request_without_headers_begins_a_trace(hook: ServerSpanHook) -> None:
    kind, trace_id, parent = request({})
    assert (kind, parent) == (SpanKind.SERVER, None)
    assert trace_id not in (1, 5)


def test_inside_any_other_span_upstream_does_what_it_does(hook: ServerSpanHook) -> None:
    with trace.use_span(OTHER):
        assert request(HEADERS) == (SpanKind.INTERNAL, 3, 4)


def test_installed_twice_and_removed(hook: ServerSpanHook) -> None:
    patched = vars(utils)[NAME]
    hook.install()
    assert vars(utils)[NAME] is patched
    hook.remove()
    assert request(HEADERS) == (SpanKind.INTERNAL, 1, 2)
    assert request(HEADERS, patched) == (SpanKind.INTERNAL, 1, 2)


def test_what_upstream_raises_comes_out_and_the_context_is_put_back(hook: ServerSpanHook) -> None:
    with pytest.raises(AttributeError, match="start_span"):
        vars(utils)[NAME](None, "GET", None, {}, default_getter)
