"""A process that is started with a trace in its environment begins inside of it."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import SILENT, Run

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STARTED_BY = SILENT | {
    "TRACEPARENT": f"00-{TRACE}-{SPAN}-01",
    "TRACESTATE": "vendor=1",
    "BAGGAGE": "who=the+shell",
}
ABOUT = """
    import json, os, sys
    from opentelemetry import baggage, trace

    with trace.get_tracer("test").start_as_current_span("span") as span:
        print(json.dumps([
            trace.format_trace_id(span.context.trace_id),
            span.parent and trace.format_span_id(span.parent.span_id),
            span.context.trace_state.get("vendor"),
            baggage.get_baggage("who"),
            os.environ.get("TRACEPARENT"),
        ]))
"""


def test_the_first_span_hangs_on_the_one_that_the_environment_names(run: Run) -> None:
    """Before anything else of the program runs; the environment stays as it is."""
    ended = run(ABOUT, env=STARTED_BY)
    assert (ended.code, ended.err) == (0, "")
    assert ended.said() == [TRACE, SPAN, "1", "the shell", STARTED_BY["TRACEPARENT"]]


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_PYTHON_CONCURRENCY_INHERIT_TRACE": "false"},
        {"TRACEPARENT": "nonsense", "BAGGAGE": ""},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "concurrency_processes"},
    ],
)
def test_turned_off_or_unreadable_it_begins_a_trace_and_says_nothing(run: Run, env: dict[str, str]) -> None:
    ended = run(ABOUT, env=STARTED_BY | env)
    assert (ended.code, ended.err) == (0, "")
    trace_id, parent, *_ = ended.said()
    assert (trace_id == TRACE, parent) == (False, None)


def test_a_request_that_a_server_serves_is_none_of_who_started_the_server(run: Run) -> None:
    """With upstream's middleware, which would otherwise not look at the headers of the request."""
    program = """
        import asyncio, json
        from opentelemetry import trace
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        seen = []

        async def app(scope, receive, send):
            span = trace.get_current_span()
            seen.append([
                span.kind.name,
                trace.format_trace_id(span.context.trace_id),
                span.parent and trace.format_span_id(span.parent.span_id),
            ])

        async def receive():
            return {"type": "http.request"}

        async def send(message):
            pass

        def request(*headers):
            return {
                "type": "http", "method": "GET", "path": "/", "query_string": b"", "http_version": "1.1",
                "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "headers": headers,
            }

        async def main():
            serve = OpenTelemetryMiddleware(app)
            await serve(request((b"traceparent", b"00-%032x-%016x-01" % (7, 8))), receive, send)
            await serve(request(), receive, send)
            return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)

        after = asyncio.run(main())
        print(json.dumps([*seen, after]))
    """
    ended = run(program, env=STARTED_BY)
    assert (ended.code, ended.err) == (0, "")
    named, unnamed, after = ended.said()
    assert named == ["SERVER", f"{7:032x}", f"{8:016x}"]
    assert (unnamed[0], unnamed[1] == TRACE, unnamed[2]) == ("SERVER", False, None)
    assert after == TRACE
