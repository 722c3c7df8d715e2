"""A program on AnyIO over trio under `opentelemetry-instrument`: the same numbers as on asyncio."""

from __future__ import annotations

from typing import Any

from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import Run, environ_for

PROGRAM = """
    import anyio, anyio.lowlevel, trio
    from opentelemetry import trace

    tracer = trace.get_tracer("test")
    kept = []

    async def walks(checkpoints):
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()

    async def fails():
        raise KeyError("x")

    async def waits():
        await anyio.sleep_forever()

    async def main():
        kept.append(trio.lowlevel.current_task()._runner)  # a loop that is gone has no live tasks to tell of
        with tracer.start_as_current_span("request"):
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(walks, 3)
                group.start_soon(waits)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(fails)
        except BaseException:
            pass

    anyio.run(main, backend="trio")
"""


def test_tasks_and_their_steps_arrive(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(PROGRAM, env=environ_for(receiver))
    assert (ended.code, ended.err) == (0, "")
    totals: dict[str, dict[tuple[str, ...], Any]] = {}
    for each in receiver.drain_metrics():
        for point in each.metric.sum.data_points or each.metric.exponential_histogram.data_points:
            labels = tuple(pair.value.string_value for pair in point.attributes)
            totals.setdefault(each.metric.name.removeprefix("asyncio."), {})[labels] = point
    assert {key: point.as_int for key, point in totals["task.completed"].items()} == {
        ("__main__.main", "finished"): 1,
        ("__main__.walks", "finished"): 10,
        ("__main__.fails", "finished"): 0,
        ("__main__.fails", "failed", "KeyError"): 1,
        ("__main__.waits", "finished"): 0,
        ("__main__.waits", "cancelled"): 1,
    }
    steps = {function: point.as_int for (function,), point in totals["task.steps"].items()}
    assert (steps["__main__.walks"], steps["__main__.fails"], steps["__main__.waits"]) == (40, 1, 2)
    walked = totals["task.duration"]["__main__.walks", "finished"]
    assert walked.count == 10
    assert {len(exemplar.trace_id) for exemplar in walked.exemplars} == {16}
    assert totals["task.start.delay"]["__main__.walks",].count == 10
    assert totals["task.step.duration"]["__main__.walks",].count == 40
    assert {labels[1] for labels in totals["task.count"]} == {"trio"}


def test_switched_off_nothing_is_told(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(PROGRAM, env=environ_for(receiver) | {"OTEL_PYTHON_CONCURRENCY_TASKS": "false"})
    assert (ended.code, ended.err) == (0, "")
    assert [
        each.metric.name for each in receiver.drain_metrics() if each.metric.name.startswith("asyncio.task.")
    ] == []


HELD = """
    import time
    import anyio
    from opentelemetry import trace

    async def holds():
        await anyio.sleep(0.3)
        with trace.get_tracer("test").start_as_current_span("request"):
            time.sleep(0.5)
        await anyio.sleep(0.3)

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(holds)

    anyio.run(main, backend="trio")
"""


def test_the_loop_tells_of_its_time_and_of_who_held_it(run: Run, receiver: OtlpProtoTestServer) -> None:
    ended = run(HELD, env=environ_for(receiver) | {"OTEL_PYTHON_CONCURRENCY_STALL_THRESHOLD": "0.1"})
    assert (ended.code, ended.err) == (0, "")
    totals: dict[tuple[str, ...], float] = {}
    for each in receiver.drain_metrics():
        for point in each.metric.sum.data_points:
            labels = {pair.key.rpartition(".")[2]: pair.value.string_value for pair in point.attributes}
            if labels.pop("type", "") == "trio":
                name = each.metric.name.removeprefix("asyncio.eventloop.")
                totals[(name, *labels.values())] = point.as_double or point.as_int
    assert totals["time", "0", "idle"] >= 0.3
    assert totals["time", "0", "active"] >= 0.5
    assert totals["iterations", "0", "blocking"] >= 1
    assert {key[-1]: total for key, total in totals.items() if key[0] == "stalls"} == {"__main__.holds": 1}
    (span,) = (each.span for each in receiver.drain_spans())
    told = [
        each.log_record
        for each in receiver.drain_log_records()
        if each.log_record.event_name.startswith("asyncio.eventloop.stall.")
    ]
    assert [each.event_name.rpartition(".")[2] for each in told] == ["started", "ended"]
    assert {(each.trace_id, each.span_id) for each in told} == {(span.trace_id, span.span_id)}


THREADS = """
    import anyio
    import trio
    from opentelemetry import trace

    tracer = trace.get_tracer("test")

    def trace_id():
        return trace.get_current_span().get_span_context().trace_id

    async def comes_back():
        return trace_id()

    def of_trio():
        return trace_id(), trio.from_thread.run(comes_back)

    def of_anyio():
        return trace_id(), anyio.from_thread.run(comes_back)

    async def main():
        for run_sync, function in ((trio.to_thread.run_sync, of_trio), (anyio.to_thread.run_sync, of_anyio)):
            for _ in range(3):
                with tracer.start_as_current_span("request"):
                    assert await run_sync(function) == (trace_id(), trace_id())
            assert await run_sync(function) == (0, 0)

    import anyio.from_thread, anyio.to_thread
    anyio.run(main, backend="trio")
"""


def test_worker_threads_are_in_their_submitters_trace_and_measured(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    ended = run(THREADS, env=environ_for(receiver))
    assert (ended.code, ended.err) == (0, "")
    completed: dict[tuple[str, ...], int] = {}
    run_times: dict[tuple[str, ...], int] = {}
    for each in receiver.drain_metrics():
        for point in each.metric.sum.data_points or each.metric.exponential_histogram.data_points:
            labels = tuple(pair.value.string_value for pair in point.attributes)
            if each.metric.name == "python.executor.task.completed":
                completed[labels] = point.as_int
            elif each.metric.name == "python.executor.task.duration":
                run_times[labels] = point.count
    assert {tuple(sorted(labels)): total for labels, total in completed.items()} == {
        ("default", "finished", "trio"): 4,
        ("anyio", "default", "finished"): 4,
    }
    assert {tuple(sorted(labels)): total for labels, total in run_times.items()} == {
        ("__main__.of_trio", "default", "trio"): 4,
        ("__main__.of_anyio", "anyio", "default"): 4,
    }
