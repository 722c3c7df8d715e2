"""FastAPI's plain functions run in AnyIO's worker threads: measured there, and in their request's trace."""

from __future__ import annotations

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import Run, environ_for

PLAIN_FUNCTIONS = """
    import json, threading
    import anyio, anyio.to_thread
    from opentelemetry import trace
    from opentelemetry.metrics import get_meter_provider
    from starlette.concurrency import run_in_threadpool

    tracer = trace.get_tracer("test")
    held, ends = threading.Semaphore(0), threading.Event()

    def trace_id():
        return trace.get_current_span().get_span_context().trace_id

    def endpoint(number):
        return trace_id(), threading.get_ident()

    def hold():
        held.release()
        ends.wait()

    async def request(number):
        with tracer.start_as_current_span(f"request {number}"):
            seen, thread = await run_in_threadpool(endpoint, number)
            return seen == trace_id() != 0, thread

    async def main():
        served = [await request(number) for number in range(5)]
        outside, thread = await run_in_threadpool(endpoint, 0)
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 2
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(run_in_threadpool, hold)
            while not (limiter.statistics().tasks_waiting and held.acquire(blocking=False)):
                await anyio.sleep(0.001)
            await anyio.sleep(0.1)
            get_meter_provider().force_flush()
            ends.set()
        threads = {thread, *(each for _, each in served)}
        print(json.dumps([all(own for own, _ in served), outside, len(threads)]))

    anyio.run(main)
"""


def test_plain_functions_are_measured_and_stay_in_their_trace(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    """One thread serves requests of several traces, and then nobody's: it keeps none of them."""
    ended = run(
        PLAIN_FUNCTIONS,
        env=environ_for(receiver) | {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics"},
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.said() == [True, 0, 1]
    during: dict[tuple[str, ...], float] = {}
    last: dict[tuple[str, ...], float] = {}
    for each in receiver.drain_metrics():
        if not each.metric.name.startswith("python.executor."):
            continue
        histogram = each.metric.exponential_histogram
        for point in each.metric.sum.data_points or histogram.data_points:
            labels = {pair.key: pair.value.string_value for pair in point.attributes}
            kind = (labels.pop("python.executor.type"), labels.pop("python.executor.name"))
            assert kind == ("anyio", "default")
            key = (each.metric.name.removeprefix("python.executor."), *labels.values())
            value = point.sum if histogram.data_points else point.as_int
            during.setdefault(key, value)
            last[key] = value
    assert during["worker.count", "active"] == 2
    assert during["worker.limit",] == 2
    assert during["queue.size",] == 1
    assert (during["task.submitted",], during["task.completed", "finished"]) == (9, 6)
    assert (last["task.submitted",], last["task.completed", "finished"]) == (9, 9)
    assert last["task.queue.duration",] >= 0.1  # what the third of the held ones waited for
    assert last["task.duration", "__main__.hold"] >= 0.2  # two of them were held that long
    assert last["task.duration", "__main__.endpoint"] < last["task.duration", "__main__.hold"]


CLIFF = """
    import asyncio, json, time
    import uvicorn
    from fastapi import FastAPI, Request

    app = FastAPI()
    arrived, everybody = [], asyncio.Event()

    @app.get("/plain")
    def plain(request: Request):
        began = time.monotonic()
        time.sleep({seconds})
        return began - request.scope["state"]["asked"]

    async def at_once(scope, receive, send):
        if scope["type"] == "http":
            arrived.append(scope)
            if len(arrived) == {requests}:
                everybody.set()
            await everybody.wait()
            scope["state"]["asked"] = time.monotonic()
        await app(scope, receive, send)

    async def get(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /plain HTTP/1.1\\r\\nHost: shop\\r\\nConnection: close\\r\\n\\r\\n")
        answer = await reader.read()
        writer.close()
        return float(answer.rpartition(b"\\r\\n")[2])

    async def main():
        config = uvicorn.Config(at_once, port=0, log_level="warning", loop="none")
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        waited = await asyncio.gather(*(get(port) for _ in range({requests})))
        server.should_exit = True
        await serving
        print(json.dumps(waited))

    {run}
"""
RUNS = {"asyncio": "asyncio.run(main())", "uvloop": "import uvloop; uvloop.run(main())"}


@pytest.mark.parametrize("loop", RUNS)
def test_the_cliff_of_forty_tokens(run: Run, receiver: OtlpProtoTestServer, loop: str) -> None:
    """Eighty plain functions at once that sleep 1.5 s each: forty run, and the others wait that long."""
    seconds, tokens, requests = 1.5, 40, 80
    ended = run(CLIFF.format(seconds=seconds, requests=requests, run=RUNS[loop]), env=environ_for(receiver))
    assert (ended.code, ended.err) == (0, "")
    truth = sorted(ended.said())  # what the functions saw: later on a busy machine
    told = sorted(
        next(
            pair.value.double_value
            for pair in each.span.attributes
            if pair.key == "concurrency.wait.executor"
        )
        for each in receiver.drain_spans()
        if each.span.kind == each.span.SPAN_KIND_SERVER
    )
    assert len(told) == requests
    assert max(told[:tokens]) <= 0.05 * seconds + max(truth[:tokens])
    waited = zip(told[-tokens:], truth[-tokens:], strict=True)
    assert [each for each in waited if not 0.95 * seconds <= each[0] <= 1.05 * max(seconds, each[1])] == []

    queues = [
        point
        for each in receiver.drain_metrics()
        if each.metric.name == "python.executor.task.queue.duration"
        for point in each.metric.exponential_histogram.data_points
    ]
    assert queues[-1].count == requests
    assert queues[-1].sum == pytest.approx(sum(told), rel=0.001)
    assert queues[-1].max == pytest.approx(told[-1], rel=0.001)
