"""Spans of tasks as Jaeger has them: which there are, whose children, and linked to what."""

from __future__ import annotations

import secrets
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.e2e.conftest import COMMAND, clean_environ
from tests.stack.backend import Backend, Span, eventually

pytestmark = pytest.mark.stack

GATHER = """
    import asyncio, sys
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind

    tracer = trace.get_tracer("shop")

    async def quick():
        await asyncio.sleep(0)

    async def slow():
        await asyncio.sleep(0.5)

    async def fails():
        await asyncio.sleep(0)
        raise ConnectionError("gone")

    async def queries():
        with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT):
            await asyncio.sleep(0)

    async def main():
        with tracer.start_as_current_span("GET /cart", kind=SpanKind.SERVER):
            await asyncio.gather(
                *(quick() for _ in range(17)), slow(), fails(), queries(), return_exceptions=True
            )

    if sys.argv[1] == "uvloop":
        import uvloop

        uvloop.new_event_loop().run_until_complete(main())
    else:
        asyncio.run(main())
"""

WORKER = """
    import asyncio
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind

    tracer = trace.get_tracer("shop")

    async def worker(is_detached, is_over):
        with tracer.start_as_current_span("early"):
            pass
        await is_detached.wait()
        with tracer.start_as_current_span("late"):
            pass
        await is_over.wait()

    async def main():
        is_detached, is_over = asyncio.Event(), asyncio.Event()
        with tracer.start_as_current_span("GET /start", kind=SpanKind.SERVER):
            task = asyncio.create_task(worker(is_detached, is_over))
            await asyncio.sleep(0)
        await asyncio.sleep(0.6)
        is_detached.set()
        await asyncio.sleep(0.1)
        is_over.set()
        await task

    asyncio.run(main())
"""


def ran(backend: Backend, tmp_path: Path, program: str, *arguments: str, **env: str) -> str:
    """Run a program under `opentelemetry-instrument`; return the name of its service."""
    service = f"shop-{secrets.token_hex(4)}"
    source = tmp_path / "program.py"
    source.write_text(textwrap.dedent(program))
    ended = subprocess.run(
        [str(COMMAND), sys.executable, str(source), *arguments],
        env=clean_environ()
        | {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoints["otlp_http"],
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return service


def tree(spans: list[Span]) -> list[tuple[str, str]]:
    """Return each span and its parent; an orphan's is `?`."""
    names = {span.span_id: span.name for span in spans}
    return sorted((span.name, names.get(span.parent_id, "?") if span.parent_id else "none") for span in spans)


@pytest.mark.parametrize("native", ["true", "false"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_of_twenty_tasks_of_a_request_three_are_there(
    backend: Backend, tmp_path: Path, loop: str, native: str
) -> None:
    # A machine that has much to do holds a quick task for a tenth of a second, now and then.
    env = {"OTEL_PYTHON_CONCURRENCY_TASK_SPAN_THRESHOLD": "0.4", "OTEL_PYTHON_CONCURRENCY_NATIVE": native}
    service = ran(backend, tmp_path, GATHER, loop, **env)
    [spans] = eventually(
        "the request, three tasks and the query",
        lambda: backend.traces(service),
        lambda found: [len(each) for each in found] == [5],
    )
    assert tree(spans) == [
        ("GET /cart", "none"),
        ("SELECT", "asyncio.task __main__.queries"),
        ("asyncio.task __main__.fails", "GET /cart"),
        ("asyncio.task __main__.queries", "GET /cart"),
        ("asyncio.task __main__.slow", "GET /cart"),
    ]
    [request] = [span.attributes for span in spans if span.name == "GET /cart"]
    assert request["concurrency.task.count"] == "20"
    if native == "true":
        assert float(request["concurrency.busy_time"]) > 0


def test_a_worker_that_outlives_its_request_is_in_two_traces_that_are_linked(
    backend: Backend, tmp_path: Path
) -> None:
    service = ran(backend, tmp_path, WORKER, OTEL_PYTHON_CONCURRENCY_DETACH_AFTER="0.5")
    traces = eventually(
        "two traces",
        lambda: backend.traces(service),
        lambda found: sorted(len(each) for each in found) == [2, 3],
    )
    then, first = sorted(traces, key=len)
    worker = "asyncio.task __main__.worker"
    assert tree(first) == sorted([("GET /start", "none"), (worker, "GET /start"), ("early", worker)])
    assert tree(then) == sorted([(worker, "none"), ("late", worker)])
    [before] = [span for span in first if span.name == worker]
    [after] = [span for span in then if span.name == worker]
    assert backend.links(before.trace_id) == [(before.span_id, after.span_id)]
    assert backend.links(after.trace_id) == [(after.span_id, before.span_id)]
