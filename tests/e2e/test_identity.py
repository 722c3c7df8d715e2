"""A program under `opentelemetry-instrument`: what its spans and log records say of who made them."""

from __future__ import annotations

from typing import Any

from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from otel_concurrency.signals.names import SCOPE_NAME
from tests.e2e.conftest import Run, environ_for

PROGRAM = """
    import asyncio, json, logging, os, threading
    from opentelemetry import trace

    tracer = trace.get_tracer("shop")

    def speaks(name):
        with tracer.start_as_current_span(name):
            logging.getLogger("shop").warning(name)

    async def works(name):
        speaks(name)
        await asyncio.to_thread(speaks, "in a thread")

    async def main():
        await asyncio.create_task(works("in a task"), name="packing")

    asyncio.run(main())
    speaks("in main")
    print(json.dumps([os.getpid(), threading.main_thread().ident]))
"""


def values(pairs: Any) -> dict[str, Any]:
    """Attributes as a dict; all are text or whole numbers."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def of_the_program(receiver: OtlpProtoTestServer) -> list[Any]:
    """Its log records; on a busy machine we may have told of a stall."""
    return [each.log_record for each in receiver.drain_log_records() if each.scope.name != SCOPE_NAME]


def test_spans_and_log_records_say_who_made_them(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(PROGRAM, env=environ_for(receiver))
    pid, main_thread = ended.said()
    in_main = {"thread.id": main_thread, "thread.name": "MainThread"}
    in_task = {**in_main, "asyncio.task.name": "packing"}
    spans = {each.span.name: each for each in receiver.drain_spans()}
    logs = {
        each.log_record.body.string_value: each
        for each in receiver.drain_log_records()
        if each.scope.name == "shop"
    }
    of_spans = {name: values(each.span.attributes) for name, each in spans.items()}
    of_logs = {name: values(each.log_record.attributes) for name, each in logs.items()}
    worker = of_spans.pop("in a thread")
    assert worker.pop("thread.name").startswith("asyncio_")
    assert set(worker) == {"thread.id"}
    assert of_spans == {"in a task": in_task, "in main": in_main}
    assert of_logs.pop("in a thread")["thread.id"] == worker["thread.id"]
    assert of_logs == {name: told | {"process.pid": pid} for name, told in of_spans.items()}
    resources = [values(each.resource.attributes) for each in (*spans.values(), *logs.values())]
    assert [each["process.pid"] for each in resources] == [pid] * 6
    assert [each.log_record.span_id for each in logs.values()] == [spans[name].span.span_id for name in logs]


def test_spans_are_left_alone_where_that_is_asked_for(run: Run, receiver: OtlpProtoTestServer) -> None:
    run(PROGRAM, env={**environ_for(receiver), "OTEL_PYTHON_CONCURRENCY_SPAN_IDENTITY": "false"})
    assert [values(each.span.attributes) for each in receiver.drain_spans()] == [{}] * 3


# The ASGI call that a server makes, without the server.
SERVES = """
    import asyncio, json, logging
    from concurrent.futures import ProcessPoolExecutor
    import otel_concurrency
    from fastapi import FastAPI

    logger = logging.getLogger("shop")
    app = FastAPI()

    def pack():
        logger.warning("packs")

    @app.get("/pack")
    async def serve():
        with ProcessPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, pack)
        await asyncio.create_task(asyncio.to_thread(logger.warning, "in a thread"))
        return otel_concurrency.get_request_id()

    async def call(*headers):
        bodies = []
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": "/pack", "raw_path": b"/pack", "query_string": b"",
            "root_path": "", "headers": [(b"host", b"shop"), *headers], "server": ("shop", 80),
            "client": ("127.0.0.1", 1),
        }
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}
        async def send(message):
            bodies.append(message.get("body", b""))
        await app(scope, receive, send)
        return json.loads(b"".join(bodies))

    async def main():
        assert await call((b"x-request-id", b"order-7")) == "order-7"
        print(json.dumps(await call()))
        logger.warning("outside")

    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_a_request_has_its_id_everywhere(run: Run, receiver: OtlpProtoTestServer) -> None:
    """In its span, and in what is logged for it in threads and other processes; nowhere else."""
    ended = run(SERVES, env=environ_for(receiver) | {"PYTHONWARNINGS": "ignore"})
    assert ended.code == 0, ended.err
    made = ended.said()
    spans = [each.span for each in receiver.drain_spans()]
    servers = [values(span.attributes)["request_id"] for span in spans if span.kind == span.SPAN_KIND_SERVER]
    logs = of_the_program(receiver)
    told = [(log.body.string_value, values(log.attributes).get("request_id")) for log in logs]
    assert sorted(servers) == sorted(["order-7", made])
    assert len(made) == 32
    assert sorted(told, key=str) == sorted(
        [
            *(("packs", each) for each in ("order-7", made)),
            *(("in a thread", each) for each in ("order-7", made)),
            ("outside", None),
        ],
        key=str,
    )
    assert all(values(span.attributes).get("request_id") in ("order-7", made) for span in spans)


QUEUES = """
    import asyncio, json, logging, logging.handlers, queue
    import structlog
    from opentelemetry import trace
    from opentelemetry.instrumentation.logging.handler import LoggingHandler

    tracer = trace.get_tracer("shop")
    waiting = queue.Queue()
    queued = logging.getLogger("queued")
    queued.propagate = False
    queued.addHandler(logging.handlers.QueueHandler(waiting))
    listener = logging.handlers.QueueListener(waiting, LoggingHandler())
    both = logging.handlers.QueueHandler(queue.Queue())
    logging.getLogger().addHandler(both)
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.stdlib.LoggerFactory()
    )

    async def works():
        with tracer.start_as_current_span("work"):
            queued.warning("to a listener")
            logging.getLogger("shop").warning("to a queue at the root")
            structlog.get_logger("structured").warning("through structlog")

    async def main():
        await asyncio.create_task(works(), name="packing")

    listener.start()
    asyncio.run(main())
    listener.stop()
"""


def test_log_records_keep_their_place_through_queues_and_structlog(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    ended = run(QUEUES, env=environ_for(receiver))
    assert (ended.code, ended.err) == (0, "")
    (span,) = (each.span for each in receiver.drain_spans())
    records = of_the_program(receiver)
    places = {
        (log.trace_id, log.span_id, told["thread.name"], told["asyncio.task.name"])
        for log in records
        for told in [values(log.attributes)]
    }
    assert sorted(log.body.string_value for log in records) == [
        "to a listener",
        "to a queue at the root",
        '{"event": "through structlog"}',
    ]
    assert places == {(span.trace_id, span.span_id, "MainThread", "packing")}
