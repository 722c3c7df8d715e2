"""A program with threads and pools under `opentelemetry-instrument`: what arrives of it."""

from __future__ import annotations

from pathlib import Path

from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import SILENT, Run, environ_for, fake_package

PROGRAM = """
    import os, threading
    from concurrent.futures import ThreadPoolExecutor
    from opentelemetry import trace

    tracer = trace.get_tracer("shop")

    def works(name):
        with tracer.start_as_current_span(name):
            return name

    def fails():
        raise LookupError("nobody looks")

    class Own(threading.Thread):
        def run(self):
            works("own run")

    with tracer.start_as_current_span("request"), ThreadPoolExecutor(2, "files-1") as pool:
        plain = threading.Thread(target=works, args=("thread",))
        threads = [Own(), threading.Timer(0, works, ("timer",)), plain]
        for thread in threads:
            thread.start()
        list(pool.map(works, ["mapped"] * 3))
        pool.submit(fails)
        for thread in threads:
            thread.join()
    works("afterwards")
    if hasattr(os, "fork"):
        pid = os.fork()
        if not pid:
            with ThreadPoolExecutor(1, "files-2") as pool:
                pool.submit(works, "child's").result()
            trace.get_tracer_provider().force_flush()
            from opentelemetry import metrics
            metrics.get_meter_provider().force_flush()
            os._exit(0)
        os.waitpid(pid, 0)
"""


def submitted(receiver: OtlpProtoTestServer) -> list[tuple[str, int]]:
    """The last total of each process that submitted work items, by pool, in the order of size."""
    totals: dict[tuple[str, str], int] = {}
    for metric in receiver.drain_metrics():
        if metric.metric.name == "python.executor.task.submitted":
            resource = {pair.key: pair.value.string_value for pair in metric.resource.attributes}
            for point in metric.metric.sum.data_points:
                attributes = {pair.key: pair.value.string_value for pair in point.attributes}
                key = resource["service.instance.id"], attributes["python.executor.name"]
                totals[key] = point.as_int
    return sorted((name, total) for (_, name), total in totals.items())


def test_all_work_is_in_the_trace_that_asked_for_it(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(PROGRAM, env=environ_for(receiver))
    assert (ended.code, ended.out) == (0, "")
    spans = {each.span.span_id: each.span for each in receiver.drain_spans()}
    parents = sorted(
        (span.name, spans[span.parent_span_id].name) for span in spans.values() if span.parent_span_id
    )
    assert parents == [
        *[("mapped", "request")] * 3,
        ("own run", "request"),
        ("thread", "request"),
        ("timer", "request"),
    ]
    # The parent's four, and the child's one: the child does not tell of the parent's once more.
    assert submitted(receiver) == [("files", 1), ("files", 4)]
    [told] = [each.log_record for each in receiver.drain_log_records() if each.log_record.event_name]
    request = next(span for span in spans.values() if span.name == "request")
    assert (told.event_name, told.trace_id) == ("python.executor.future.unretrieved", request.trace_id)


def test_switched_off_threads_are_left_alone(run: Run) -> None:
    program = """
        import json, threading
        from concurrent.futures import Future, ThreadPoolExecutor
        patched = [ThreadPoolExecutor.submit, threading.Thread.start, Future.add_done_callback]
        print(json.dumps([each.__code__.co_filename.count("otel_concurrency") for each in patched]))
    """
    env = SILENT | {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "threading"}
    assert min(run(program, env=env).said()) > 0
    assert run(program, env=env | {"OTEL_PYTHON_CONCURRENCY_THREADS": "false"}).said() == [0, 0, 0]


def test_beside_upstreams_instrumentor_work_runs_once_and_in_its_trace(run: Run) -> None:
    program = """
        import json, threading
        from concurrent.futures import ThreadPoolExecutor
        from opentelemetry import trace
        from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span
        seen = []
        def look():
            seen.append(trace.get_current_span().get_span_context().span_id)
        with use_span(NonRecordingSpan(SpanContext(1, 7, False))), ThreadPoolExecutor(1) as pool:
            pool.submit(look).result()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        print(json.dumps(seen))
    """
    assert run(program, env=SILENT | {"OTEL_PYTHON_CONCURRENCY_KEEP_UPSTREAM": "threading"}).said() == [7, 7]


THREAD_LOCALS = """
    import threading
    from opentelemetry.context.context import Context, _RuntimeContext

    class ThreadLocals(_RuntimeContext, threading.local):
        current = Context()

        def attach(self, context):
            before, self.current = self.current, context
            return before

        def get_current(self):
            return self.current

        def detach(self, token):
            self.current = token
"""


def test_a_runtime_context_of_another_kind_is_carried_too(run: Run, tmp_path: Path) -> None:
    """`OTEL_PYTHON_CONTEXT` may name one that keeps the current context where no copy finds it."""
    program = """
        import json, threading
        from concurrent.futures import ThreadPoolExecutor
        from opentelemetry import trace

        class OwnRun(threading.Thread):
            def run(self):
                look()

        def look():
            seen.append(format(trace.get_current_span().get_span_context().span_id, "x"))

        seen = []
        with ThreadPoolExecutor(1) as pool:
            with trace.get_tracer("test").start_as_current_span("span") as span:
                own = format(span.get_span_context().span_id, "x")
                for thread in (threading.Thread(target=look), threading.Timer(0, look), OwnRun()):
                    thread.start()
                    thread.join()
                pool.submit(look).result()
                list(pool.map(lambda _: look(), range(2)))
            pool.submit(look).result()
        print(json.dumps(["own" if each == own else each for each in seen]))
    """
    entry_point = """
        [opentelemetry_context]
        thread_locals = thread_locals:ThreadLocals
    """
    env = fake_package(tmp_path / "site", "thread_locals", entry_point, THREAD_LOCALS)
    ended = run(program, env={**SILENT, **env, "OTEL_PYTHON_CONTEXT": "thread_locals"})
    assert (ended.code, ended.err, ended.said()) == (0, "", [*["own"] * 6, "0"])
