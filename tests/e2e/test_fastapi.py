"""A FastAPI request under `opentelemetry-instrument`: one server span, its metrics once, nothing inside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import Run, environ_for

OLDER = ("fastapi==0.115.12", "starlette==0.46.2")  # emits nothing by itself
REQUESTS = 3

# The ASGI call that a server makes, without the server: three requests, one after the other.
PROGRAM = """
    import asyncio
    from fastapi import BackgroundTasks, FastAPI
    {before}

    app = FastAPI({arguments})

    @app.get("/items/{{number}}")
    async def read_item(number: int, background: BackgroundTasks):
        background.add_task(lambda: None)
        return {{"number": number}}

    {after}

    async def call(path):
        statuses = []
        scope = {{
            "type": "http", "asgi": {{"version": "3.0"}}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "headers": [(b"host", b"shop")], "server": ("shop", 80),
            "client": ("127.0.0.1", 1),
        }}
        async def receive():
            return {{"type": "http.request", "body": b"", "more_body": False}}
        async def send(message):
            statuses.append(message.get("status"))
        await app(scope, receive, send)
        return statuses[0]

    async def main():
        for number in range(3):
            assert await call(f"/items/{{number}}") == 200

    asyncio.run(main())
"""


def program(arguments: str = "", before: str = "", after: str = "") -> str:
    return PROGRAM.format(arguments=arguments, before=before, after=after)


class Telemetry:
    """What three requests sent, counted."""

    def __init__(self, run: Run, receiver: OtlpProtoTestServer, source: str, **env: str) -> None:
        self.ended = run(source, env=environ_for(receiver) | env)
        spans = receiver.drain_spans()
        self.spans = Counter((each.span.kind, each.span.name) for each in spans)
        self.scopes = {each.scope.name for each in spans}
        self.requests: Counter[str] = Counter()
        for each in receiver.drain_metrics():
            if each.metric.name.startswith("http.server."):
                counts = [point.count for point in each.metric.histogram.data_points]
                totals = [point.as_int for point in each.metric.sum.data_points]
                self.requests[each.metric.name] += sum(counts + totals)


SERVER, INTERNAL = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL
ONE_EACH = {(SERVER, "GET /items/{number}"): REQUESTS}


@pytest.fixture(scope="session")
def older_fastapi() -> dict[str, str]:
    """An older FastAPI for `PYTHONPATH`, before all else; kept outside the tree once it was fetched."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "otel-concurrency"
    target = Path(os.environ.get("OTEL_CONCURRENCY_CACHE") or default) / "-".join(("test", *OLDER))
    if not target.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            f"{target}.part",
            *OLDER,
        ]
        fetched = subprocess.run(command, capture_output=True, text=True)
        if fetched.returncode:
            pytest.skip(f"needs {' and '.join(OLDER)}, which `{' '.join(command[1:])}` could not fetch")
        Path(f"{target}.part").rename(target)
    return {"PYTHONPATH": str(target), "PYTHONWARNINGS": "ignore::DeprecationWarning"}


def test_fastapis_own_telemetry_speaks_alone(run: Run, receiver: OtlpProtoTestServer) -> None:
    heard = Telemetry(run, receiver, program())
    assert (heard.ended.code, heard.ended.err) == (0, "")
    assert heard.spans == ONE_EACH
    assert heard.scopes == {"fastapi"}
    assert heard.requests == {"http.server.request.duration": REQUESTS, "http.server.active_requests": 0}


def test_an_older_fastapi_gets_contribs_instrumentor_without_message_spans(
    run: Run, receiver: OtlpProtoTestServer, older_fastapi: dict[str, str]
) -> None:
    heard = Telemetry(run, receiver, program(), **older_fastapi)
    assert (heard.ended.code, heard.ended.err) == (0, "")
    assert heard.spans == ONE_EACH | {(INTERNAL, "BackgroundTask <lambda>"): REQUESTS}
    assert heard.scopes == {"opentelemetry.instrumentation.fastapi"}
    assert heard.requests["http.server.request.duration"] == REQUESTS


def test_one_variable_turns_the_inner_spans_on(run: Run, receiver: OtlpProtoTestServer) -> None:
    heard = Telemetry(run, receiver, program(), OTEL_PYTHON_CONCURRENCY_HTTP_INNER_SPANS="true")
    assert heard.spans == ONE_EACH | {
        (INTERNAL, f"fastapi.{name}"): REQUESTS
        for name in ("dependencies", "endpoint", "serialization", "background_task")
    }


def test_the_same_variable_turns_contribs_message_spans_on(
    run: Run, receiver: OtlpProtoTestServer, older_fastapi: dict[str, str]
) -> None:
    inner = {"OTEL_PYTHON_CONCURRENCY_HTTP_INNER_SPANS": "true"}
    heard = Telemetry(run, receiver, program(), **older_fastapi, **inner)
    assert heard.spans[(SERVER, "GET /items/{number}")] == REQUESTS
    assert heard.spans[(INTERNAL, "GET /items/{number} http send")] == 2 * REQUESTS


def test_the_application_has_the_last_word(run: Run, receiver: OtlpProtoTestServer) -> None:
    """Its own dict turns the operation spans on, whatever our default is."""
    heard = Telemetry(run, receiver, program('telemetry={"operation_spans": True}'))
    assert heard.spans[(INTERNAL, "fastapi.endpoint")] == REQUESTS


def test_an_application_that_turns_tracing_off_has_no_server_span(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    heard = Telemetry(run, receiver, program('telemetry={"tracing": False}'))
    assert heard.spans == {}
    assert heard.requests["http.server.request.duration"] == REQUESTS


@pytest.mark.parametrize("arguments", ["", 'telemetry={"tracing": False, "metrics": False}'])
def test_an_application_that_calls_contrib_itself_has_one_server_span(
    run: Run, receiver: OtlpProtoTestServer, arguments: str
) -> None:
    """FastAPI stands aside for contrib's middleware, whoever put it there."""
    before = "from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor"
    after = "FastAPIInstrumentor.instrument_app(app, exclude_spans=['receive', 'send'])"
    heard = Telemetry(run, receiver, program(arguments, before, after))
    assert heard.spans == ONE_EACH | {(INTERNAL, "BackgroundTask <lambda>"): REQUESTS}
    assert heard.requests == {
        "http.server.request.duration": REQUESTS,
        "http.server.active_requests": 0,
        "http.server.response.body.size": REQUESTS,
    }


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_PYTHON_CONCURRENCY_KEEP_UPSTREAM": "fastapi"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "concurrency_fastapi"},
        {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "host"},
    ],
)
def test_contribs_instrumentor_serves_who_asks_for_it(
    run: Run, receiver: OtlpProtoTestServer, env: dict[str, str]
) -> None:
    """By name, by disabling ours, or for what only contrib's can do."""
    heard = Telemetry(run, receiver, program(), **env)
    assert (heard.ended.code, heard.ended.err) == (0, "")
    assert heard.spans[(SERVER, "GET /items/{number}")] == REQUESTS
    assert heard.scopes == {"opentelemetry.instrumentation.fastapi"}
    assert heard.requests["http.server.request.duration"] == REQUESTS


def test_excluded_urls_are_left_out(run: Run, receiver: OtlpProtoTestServer) -> None:
    """The variable is contrib's; FastAPI's own telemetry obeys it as well."""
    heard = Telemetry(run, receiver, program(), OTEL_PYTHON_FASTAPI_EXCLUDED_URLS="items/1$,nothing")
    assert heard.spans == {(SERVER, "GET /items/{number}"): REQUESTS - 1}


def test_a_disabled_fastapi_instrumentor_leaves_fastapi_to_itself(
    run: Run, receiver: OtlpProtoTestServer, older_fastapi: dict[str, str]
) -> None:
    """Ours never loads what the person has disabled by its own name."""
    off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi"}
    assert Telemetry(run, receiver, program(), **older_fastapi, **off).spans == {}


def test_behind_a_base_http_middleware_attributes_land_on_the_server_span(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    """The middleware runs what is behind it in a task of its own."""
    middleware = """
    from opentelemetry import trace
    from starlette.middleware.base import BaseHTTPMiddleware

    class Passes(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            return await call_next(request)

    app.add_middleware(Passes)

    @app.get("/tenants/{number}")
    async def read_tenant(number: int):
        trace.get_current_span().set_attribute("tenant", number)
        await asyncio.sleep(0)
        return {}
    """
    ended = run(
        program(after=middleware).replace('/items/{number}") == 200', '/tenants/{number}") == 200'),
        env=environ_for(receiver),
    )
    assert (ended.code, ended.err) == (0, "")
    spans = receiver.drain_spans()
    told = [{each.key: each.value.int_value for each in span.span.attributes}.get("tenant") for span in spans]
    assert [(span.span.kind, span.span.name) for span in spans] == [
        (SERVER, "GET /tenants/{number}")
    ] * REQUESTS
    assert sorted(told, key=str) == [0, 1, 2]


WORKING = {
    "before": """
    import time
    from fastapi import Depends

    async def part():
        await asyncio.sleep(0)

    async def work():
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass
        await asyncio.gather(*(part() for _ in range(5)))
        await asyncio.to_thread(time.sleep, 0.001)
""",
    "arguments": "dependencies=[Depends(work)]",
}


@pytest.mark.parametrize("native", ["true", "false"])
def test_a_request_says_where_its_time_went(run: Run, receiver: OtlpProtoTestServer, native: str) -> None:
    env = environ_for(receiver) | {"OTEL_PYTHON_CONCURRENCY_NATIVE": native}
    ended = run(program(**WORKING), env=env)
    assert (ended.code, ended.err) == (0, "")
    spans = [each.span for each in receiver.drain_spans() if each.span.kind == SERVER]
    assert len(spans) == REQUESTS
    for span in spans:
        took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        said = {each.key: each.value for each in span.attributes if each.key.startswith("concurrency.")}
        assert said["concurrency.task.count"].int_value == 5
        assert 0 < said["concurrency.wait.executor"].double_value <= took
        if native == "true":
            assert 0.05 <= said["concurrency.busy_time"].double_value <= took
            assert 0 < said["concurrency.scheduled_time"].double_value <= 5 * took
        else:
            assert said.keys() == {"concurrency.task.count", "concurrency.wait.executor"}
