"""A thousand items of every way into a process pool: every span arrives, with the right parent, once."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import SILENT, Run, environ_for
from tests.e2e.propagation.table import SETTINGS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

ITEMS = 1_000
FORMS = (
    *("submit", "executor map", "run_in_executor, asyncio", "run_in_executor, uvloop"),
    *("apply", "apply_async", "map", "map_async", "imap", "imap_unordered", "starmap", "starmap_async"),
)
MADE = ("before", "inside")
PROGRAM = """
    import asyncio, multiprocessing, uvloop
    from concurrent.futures import ProcessPoolExecutor
    from opentelemetry import trace

    ITEMS = {items}
    tracer = trace.get_tracer("app")

    def work(number):
        return number

    async def gather(executor):
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, work, n) for n in range(ITEMS)))

    def run_on(loop, executor):
        try:
            return loop.run_until_complete(gather(executor))
        finally:
            loop.close()

    FORMS = {{
        "submit": lambda executor, pool: [
            each.result() for each in [executor.submit(work, n) for n in range(ITEMS)]
        ],
        "executor map": lambda executor, pool: list(executor.map(work, range(ITEMS))),
        "run_in_executor, asyncio": lambda executor, pool: run_on(asyncio.new_event_loop(), executor),
        "run_in_executor, uvloop": lambda executor, pool: run_on(uvloop.new_event_loop(), executor),
        "apply": lambda executor, pool: [pool.apply(work, (n,)) for n in range(ITEMS)],
        "apply_async": lambda executor, pool: [
            each.get() for each in [pool.apply_async(work, (n,)) for n in range(ITEMS)]
        ],
        "map": lambda executor, pool: pool.map(work, range(ITEMS), 1),
        "map_async": lambda executor, pool: pool.map_async(work, range(ITEMS), 1).get(),
        "imap": lambda executor, pool: list(pool.imap(work, range(ITEMS))),
        "imap_unordered": lambda executor, pool: sorted(pool.imap_unordered(work, range(ITEMS))),
        "starmap": lambda executor, pool: pool.starmap(work, [(n,) for n in range(ITEMS)], 1),
        "starmap_async": lambda executor, pool: pool.starmap_async(work, zip(range(ITEMS)), 1).get(),
    }}

    def run(made, executor, pool):
        for name, form in FORMS.items():
            with tracer.start_as_current_span(f"{{name}}, made {{made}}"):
                assert form(executor, pool) == list(range(ITEMS)), name

    if __name__ == "__main__":
        context = multiprocessing.get_context("{method}")
        # One pool of each is ended in order, the other one's workers by SIGTERM, as `with` does it.
        with ProcessPoolExecutor(2, mp_context=context) as executor, context.Pool(2) as pool:
            assert pool.apply(work, (1,)) == executor.submit(work, 1).result() == 1
            run("before", executor, pool)
        with tracer.start_as_current_span("where the pools are made"):
            executor, pool = ProcessPoolExecutor(2, mp_context=context), context.Pool(2)
            assert pool.apply(work, (1,)) == executor.submit(work, 1).result() == 1
        run("inside", executor, pool)
        executor.shutdown()
        pool.close()
        pool.join()
    """
FEW = {
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": SETTINGS["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"],
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_PYTHON_CONCURRENCY_TASK_SPANS": "none",  # a task that submits would stand in between
    "OTEL_PYTHON_CONCURRENCY_PROCESS_SPANS": "all",
    "OTEL_BSP_MAX_QUEUE_SIZE": "50000",  # what the SDK drops when its queue is full is not the question
}


def values(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_item_makes_one_span_under_its_submitters(
    run: Run, receiver: OtlpProtoTestServer, method: str
) -> None:
    ended = run(PROGRAM.format(items=ITEMS, method=method), env=environ_for(receiver) | FEW)
    assert (ended.code, ended.err) == (0, "")
    spans = [each.span for each in receiver.drain_spans()]
    assert len({span.span_id for span in spans}) == len(spans)
    items = [span for span in spans if span.kind == Span.SPAN_KIND_CONSUMER]
    names = {(span.trace_id, span.span_id): span.name for span in spans}
    assert Counter(names.get((span.trace_id, span.parent_span_id), "unknown") for span in items) == {
        "where the pools are made": 2,
        **{f"{form}, made {made}": ITEMS for form in FORMS for made in MADE},
    }
    told = {
        (each["code.function.name"], each["python.executor.type"], each["python.executor.name"].split(":")[0])
        for each in map(values, items)
    }
    assert told == {("__main__.work", kind, "__main__") for kind in ("process", "mp_pool")}
    assert min(values(span)["python.executor.task.queue.time"] for span in items) > 0


SWITCHED = """
    import json, multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from opentelemetry import trace

    def parent():
        return format(trace.get_current_span().get_span_context().span_id, "016x")

    if __name__ == "__main__":
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as executor, context.Pool(1) as pool:
            with trace.get_tracer("app").start_as_current_span("span") as span:
                seen = [executor.submit(parent).result(), pool.apply(parent)]
            print(json.dumps([each == format(span.get_span_context().span_id, "016x") for each in seen]))
    """


@pytest.mark.parametrize(
    ("variable", "value", "seen"), [("SPANS", "none", [True, True]), ("POOLS", "false", [False, False])]
)
def test_spans_and_all_of_it_can_be_switched_off(
    run: Run, variable: str, value: str, seen: list[bool]
) -> None:
    """Without spans the item's current span is the submitter's; without anything, nobody's."""
    ended = run(SWITCHED, env=SILENT | {f"OTEL_PYTHON_CONCURRENCY_PROCESS_{variable}": value})
    assert (ended.code, ended.err, ended.said()) == (0, "", seen)


EVERYTHING_PICKLES = """
    import asyncio, concurrent.futures.process, concurrent.futures.thread, gc, json, os, pickle, subprocess
    import multiprocessing.pool, multiprocessing.spawn
    from otel_concurrency.hooks.patch import Patch

    def trouble(patch):
        try:
            pickle.dumps(getattr(patch.owner, patch.name))
        except Exception as error:
            return [f"{patch}: {error}"]
        return []

    if __name__ == "__main__":
        patches = [each for each in gc.get_objects() if type(each) is Patch and each.is_outermost]
        process = multiprocessing.get_context("spawn").Process(target=os._exit, args=(7,))
        process.start()
        process.join()
        print(json.dumps([len(patches) > 20, sum(map(trouble, patches), []), process.exitcode]))
"""


def test_what_we_replaced_is_pickled_as_without_us(run: Run) -> None:
    """All of it, and `os._exit` as the target of a process that is spawned."""
    ended = run(EVERYTHING_PICKLES, env=SILENT)
    assert (ended.said(), ended.err) == ([True, [], 7], "")
