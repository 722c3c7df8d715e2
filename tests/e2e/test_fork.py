"""Forked and spawned children under the command: each tells of itself once, and nothing is counted twice."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from .conftest import Run, environ_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

# CPython 3.12 and later warn who forks beside threads, those of the SDK included.
QUICK = {
    "PYTHONWARNINGS": "ignore:This process:DeprecationWarning",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_BLRP_SCHEDULE_DELAY": "100",
}
START = """
    import logging, multiprocessing, os, sys
    from opentelemetry import metrics, trace
    meter, tracer = metrics.get_meter("test"), trace.get_tracer("test")
    logging.getLogger("test").setLevel("INFO")  # which nobody prints
    counter, active = meter.create_counter("counter"), meter.create_up_down_counter("active")
    sizes = meter.create_histogram("sizes")

    def work(name):
        counter.add(1)
        active.add(1)
        sizes.record(10)
        with tracer.start_as_current_span(name):
            logging.getLogger("test").info("log of %s", name)
        trace.get_tracer_provider().force_flush()
        metrics.get_meter_provider().force_flush()
        from opentelemetry._logs import get_logger_provider
        get_logger_provider().force_flush()
"""
OS_FORK = (
    START
    + """
    counter.add(5)
    active.add(5)
    for _ in range(5):
        sizes.record(1)
    with tracer.start_as_current_span("before the fork"):
        pass
    if not (pid := os.fork()):
        work("child")
        if not (grandchild := os.fork()):
            work("grandchild")
            os._exit(0)
        os._exit(os.waitpid(grandchild, 0)[1])
    assert os.waitpid(pid, 0)[1] == 0
    with tracer.start_as_current_span("after the fork"):
        pass
"""
)
MULTIPROCESSING = (
    START
    + """
    if __name__ == "__main__":
        context = multiprocessing.get_context(os.environ["START_METHOD"])
        counter.add(5)
        children = [context.Process(target=work, args=(f"child {n}",)) for n in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
"""
)


def instance(record: Any) -> str:
    return next(
        each.value.string_value for each in record.resource.attributes if each.key == "service.instance.id"
    )


def totals(metrics: list[Any]) -> dict[str, list[float]]:
    """Return each metric of the test with its value in each instance, sorted; a histogram's is its count."""
    last: dict[str, dict[str, float]] = {}
    for record in metrics:
        if record.scope.name == "test":
            data = getattr(record.metric, record.metric.WhichOneof("data"))
            for point in data.data_points:
                value = point.count if record.metric.HasField("histogram") else point.as_int
                last.setdefault(record.metric.name, {})[instance(record)] = value
    return {name: sorted(of_instance.values()) for name, of_instance in last.items()}


def summed(metrics: list[Any]) -> dict[str, float]:
    """Return the sum of all that came for each metric of the test: what delta temporality means."""
    found: Counter[str] = Counter()
    for record in metrics:
        if record.scope.name == "test":
            data = getattr(record.metric, record.metric.WhichOneof("data"))
            for point in data.data_points:
                found[record.metric.name] += (
                    point.count if record.metric.HasField("histogram") else point.as_int
                )
    return dict(found)


def told(receiver: OtlpProtoTestServer) -> tuple[list[str], list[str], set[str]]:
    """Return the names of all spans, the texts of all log records, and the instances that each tells of."""
    spans, records = receiver.drain_spans(), receiver.drain_log_records()
    of_spans = {each.span.name: instance(each) for each in spans}
    of_logs = {each.log_record.body.string_value.removeprefix("log of "): instance(each) for each in records}
    assert of_logs.items() <= of_spans.items()
    return (
        sorted(each.span.name for each in spans),
        sorted(each.log_record.body.string_value for each in records),
        set(of_spans.values()),
    )


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_forks_of_forks_tell_of_themselves_once(
    run: Run, receiver: OtlpProtoTestServer, temporality: str
) -> None:
    ended = run(
        OS_FORK,
        env=environ_for(receiver)
        | QUICK
        | {
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
            "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-1",
        },
    )
    assert (ended.code, ended.err) == (0, "")
    spans, logs, instances = told(receiver)
    assert spans == ["after the fork", "before the fork", "child", "grandchild"]
    assert logs == ["log of child", "log of grandchild"]
    assert len(instances) == 3
    assert sorted(each[:6] for each in instances) == ["pod-1", "pod-1-", "pod-1-"]
    metrics = receiver.drain_metrics()
    assert {instance(each) for each in metrics} == instances
    assert totals(metrics)["active"] == [1, 1, 5]  # neither temporality gives deltas of what goes up and down
    if temporality == "delta":
        assert (summed(metrics)["counter"], summed(metrics)["sizes"]) == (7, 7)
    else:
        assert totals(metrics) == {name: [1, 1, 5] for name in ("counter", "active", "sizes")}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_tell_of_themselves_once(
    run: Run, receiver: OtlpProtoTestServer, method: str
) -> None:
    user = {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-1", "START_METHOD": method}
    ended = run(MULTIPROCESSING, env=environ_for(receiver) | QUICK | user)
    assert (ended.code, ended.err) == (0, "")
    names = [f"child {number}" for number in range(3)]
    spans, logs, instances = told(receiver)
    assert (spans, logs) == (names, [f"log of {name}" for name in names])
    assert len(instances) == 3
    assert all(each.startswith("pod-1-") for each in instances)
    metrics = receiver.drain_metrics()
    assert totals(metrics) == {"counter": [1, 1, 1, 5], "active": [1, 1, 1], "sizes": [1, 1, 1]}
    # A forkserver and a resource tracker have nothing to tell: the program and its children do.
    assert {instance(each) for each in metrics} == instances | {"pod-1"}


def test_without_an_id_of_the_users_each_process_has_a_random_one(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    ended = run(OS_FORK, env=environ_for(receiver) | QUICK)
    assert ended.code == 0, ended.err
    _, _, instances = told(receiver)
    assert [len(each) for each in instances] == [36] * 3
    assert {instance(each) for each in receiver.drain_metrics()} == instances


def test_a_child_that_records_nothing_still_reports_the_metrics_of_its_process(
    run: Run, receiver: OtlpProtoTestServer
) -> None:
    program = """
        import multiprocessing, os, threading
        def quiet(told):
            told.send([thread.name for thread in threading.enumerate()])
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=quiet, args=(theirs,))
        child.start()
        assert "OtelPeriodicExportingMetricReader" in ours.recv()
        child.join()
        if not (pid := os.fork()):
            os._exit(threading.active_count() - 1)
        assert os.waitpid(pid, 0)[1] == 0
    """
    ended = run(program, env=environ_for(receiver) | QUICK)
    assert (ended.code, ended.err) == (0, "")
