"""The SDK's parts in a forked child: counts from zero, an identity and connections of their own."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.hooks import fork as fork_hook
from otel_concurrency.signals import fork, identity, late_threads
from otel_concurrency.signals.fork_pause import ForkPause

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]
DELTA = dict.fromkeys((Counter, UpDownCounter, Histogram, ObservableCounter), AggregationTemporality.DELTA)


class Parts:
    """One provider of each kind, taken for the global ones."""

    def __init__(self, attributes: dict[str, Any] | None = None) -> None:
        resource = Resource.create({"service.name": "test"} | (attributes or {}))
        self.cumulative, self.delta = InMemoryMetricReader(), InMemoryMetricReader(DELTA)
        self.spans = InMemorySpanExporter()
        self.processor = BatchSpanProcessor(self.spans)
        self.tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.tracers.add_span_processor(self.processor)
        self.meters = MeterProvider([self.cumulative, self.delta], resource, shutdown_on_exit=False)
        self.loggers = LoggerProvider(resource, shutdown_on_exit=False)

    def ids(self) -> list[Any]:
        found = (self.tracers.resource, self.loggers.resource, self.meters._sdk_config.resource)
        return [each.attributes.get("service.instance.id") for each in found]


@pytest.fixture
def safety() -> Iterator[fork.ForkSafety]:
    made = fork.ForkSafety()
    yield made
    made.remove()


@pytest.fixture
def begin(safety: fork.ForkSafety, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Parts]]:
    """Make the parts, after ours was installed or, with `late`, before."""
    made: list[Parts] = []
    monkeypatch.setenv(identity.CLAIM, "")

    def begin(attributes: dict[str, Any] | None = None, *, late: bool = False) -> Parts:
        if not late:
            safety.prepare()
        parts = Parts(attributes)
        made.append(parts)
        monkeypatch.setattr(fork, "_providers", lambda: [parts.tracers, parts.loggers, parts.meters])
        safety.install()
        return parts

    yield begin
    for parts in made:
        parts.tracers.shutdown()
        parts.meters.shutdown()


def forked(tell: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(write, json.dumps(tell()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(told)


def values(reader: InMemoryMetricReader) -> dict[str, Any]:
    """Return the values of a collection; a histogram gives its count and sum."""
    data = reader.get_metrics_data()
    found: dict[str, Any] = {}
    for resource_metrics in data.resource_metrics if data else ():
        for scope in resource_metrics.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    value = getattr(point, "value", None)
                    found[metric.name] = [point.count, point.sum] if value is None else value  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("late", [False, True])
def test_the_sum_over_parent_and_child_is_what_was_counted(begin: Callable[..., Parts], late: bool) -> None:
    parts = begin(late=late)
    meter = parts.meters.get_meter("test")
    counter, active = meter.create_counter("counter"), meter.create_up_down_counter("active")
    sizes, level = meter.create_histogram("sizes"), meter.create_gauge("level")
    meter.create_observable_counter("watched", [lambda _: [metrics.Observation(7)]])
    counter.add(5)
    active.add(3)
    sizes.record(10)
    sizes.record(20)
    level.set(4)
    before = values(parts.cumulative), values(parts.delta)
    assert before[0] == {"counter": 5, "active": 3, "sizes": [2, 30], "level": 4, "watched": 7}

    def child() -> Any:
        at_first = values(parts.cumulative), values(parts.delta)
        counter.add(1)
        active.add(-1)
        sizes.record(5)
        return [*at_first, values(parts.cumulative), values(parts.delta)]

    assert forked(child) == [
        {"watched": 7},
        {"watched": 7},
        {"counter": 1, "active": -1, "sizes": [1, 5], "watched": 7},
        {"counter": 1, "active": -1, "sizes": [1, 5], "watched": 0},
    ]
    counter.add(2)
    assert values(parts.cumulative) == {
        "counter": 7,
        "active": 3,
        "sizes": [2, 30],
        "level": 4,
        "watched": 7,
    }


def test_a_childs_series_begin_after_the_fork(begin: Callable[..., Parts]) -> None:
    parts = begin()
    counter = parts.meters.get_meter("test").create_counter("counter")
    counter.add(5)

    def start_time() -> int:
        data = parts.cumulative.get_metrics_data()
        assert data is not None
        return data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0].start_time_unix_nano  # type: ignore[return-value, union-attr]

    started = start_time()

    def child() -> bool:
        counter.add(1)
        return start_time() > started

    assert forked(child) is True


def test_locks_that_another_thread_held_do_not_stop_the_child(begin: Callable[..., Parts]) -> None:
    parts = begin()
    counter = parts.meters.get_meter("test").create_counter("counter")
    counter.add(5)
    consumer: Any = parts.meters._measurement_consumer
    storage = consumer._reader_storages[parts.cumulative]
    match = next(iter(storage._instrument_view_instrument_matches.values()))[0]
    aggregation = next(iter(match._attributes_aggregation.values()))
    batch = parts.processor._batch_processor
    held, done = threading.Event(), threading.Event()
    locks = (
        consumer._lock,
        storage._lock,
        match._lock,
        aggregation._lock,
        batch._export_lock,
        parts.meters._meter_lock,
        parts.tracers._tracers_lock,
        parts.loggers._active_loggers_lock,
        parts.cumulative._lock,
    )

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        held.set()
        done.wait()
        for lock in reversed(locks):
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child() -> Any:
        counter.add(1)
        with parts.tracers.get_tracer("a tracer that is new here").start_as_current_span("span"):
            pass
        parts.processor.force_flush()
        return [values(parts.cumulative), [span.name for span in parts.spans.get_finished_spans()]]

    try:
        assert forked(child) == [{"counter": 1}, ["span"]]
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("late", [False, True])
def test_each_process_has_one_id_of_its_own(begin: Callable[..., Parts], late: bool) -> None:
    parts = begin(late=late)
    tracer = parts.tracers.get_tracer("test")

    def child() -> Any:
        with tracer.start_as_current_span("span") as span:
            told = span.resource.attributes["service.instance.id"]  # type: ignore[attr-defined]
        return [parts.ids(), told, forked(parts.ids)]

    of_child, of_span, of_grandchild = forked(child)
    for ids in (parts.ids(), of_child, of_grandchild):
        assert len(set(ids)) == 1
    assert of_span == of_child[0]
    assert len({parts.ids()[0], of_child[0], of_grandchild[0]}) == 3


@pytest.mark.parametrize("late", [False, True])
def test_the_users_id_stays_recognisable(begin: Callable[..., Parts], late: bool) -> None:
    parts = begin({"service.instance.id": "pod-1"}, late=late)
    assert parts.ids() == ["pod-1"] * 3

    def child() -> Any:
        return [os.getpid(), parts.ids(), forked(lambda: [os.getpid(), parts.ids()])]

    pid, ids, (grand_pid, grand_ids) = forked(child)
    assert (len(set(ids)), len(set(grand_ids))) == (1, 1)
    assert ids[0].startswith(f"pod-1-{pid}-")
    assert grand_ids[0].startswith(f"pod-1-{grand_pid}-")
    assert parts.ids() == ["pod-1"] * 3


def test_a_process_started_by_one_that_has_the_id_qualifies_it(
    begin: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin({"service.instance.id": "pod-1"})
    assert os.environ[identity.CLAIM] == f"{os.getpid()} pod-1"
    monkeypatch.setenv(identity.CLAIM, "1 pod-1")
    (own,) = set(begin({"service.instance.id": "pod-1"}).ids())
    assert own.startswith(f"pod-1-{os.getpid()}-")


def test_another_service_keeps_its_own_id(
    begin: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(identity.CLAIM, "1 pod-1")
    assert begin({"service.instance.id": "another"}).ids() == ["another"] * 3


def test_the_process_id_in_the_resource_is_the_childs(begin: Callable[..., Parts]) -> None:
    parts = begin({"process.pid": 1, "process.parent_pid": 0})

    def child() -> Any:
        attributes = parts.tracers.resource.attributes
        return [os.getpid(), attributes["process.pid"], attributes["process.parent_pid"]]

    pid, told, parent = forked(child)
    assert (told, parent) == (pid, os.getpid())


def test_what_waits_in_the_parent_is_the_parents_to_send(begin: Callable[..., Parts]) -> None:
    parts = begin()
    tracer = parts.tracers.get_tracer("test")
    with tracer.start_as_current_span("of the parent"):
        pass

    def child() -> Any:
        with tracer.start_as_current_span("of the child"):
            pass
        parts.processor.force_flush()
        return [span.name for span in parts.spans.get_finished_spans()]

    assert forked(child) == ["of the child"]
    parts.processor.force_flush()
    assert [span.name for span in parts.spans.get_finished_spans()] == ["of the parent"]


class Silent(MetricExporter):
    def export(self, *args: Any, **kwargs: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass


def test_threads_start_with_the_first_sign_of_work(begin: Callable[..., Parts]) -> None:
    parts = begin()
    reader = PeriodicExportingMetricReader(Silent())
    parts.meters.add_metric_reader(reader)
    tracer, counter = parts.tracers.get_tracer("test"), parts.meters.get_meter("test").create_counter("one")

    def running() -> list[bool]:
        threads: Any = (parts.processor._batch_processor._worker_thread, reader._daemon_thread)
        return [thread.is_alive() for thread in threads]

    def traced() -> Any:
        before = running()
        with tracer.start_as_current_span("span"):
            pass
        return [before, running()]

    def counted() -> Any:
        before = running()
        counter.add(1)
        return [before, running()]

    assert running() == [True, True]
    assert forked(traced) == [[False, False], [True, True]]
    assert forked(counted) == [[False, False], [False, True]]
    assert forked(lambda: forked(traced)) == [[False, False], [True, True]]


def test_a_thread_that_never_started_still_ends_its_work(begin: Callable[..., Parts]) -> None:
    parts = begin()
    parts.meters.add_metric_reader(PeriodicExportingMetricReader(Silent()))
    tracer = parts.tracers.get_tracer("test")

    def child() -> Any:
        with tracer.start_as_current_span("span"):
            pass
        parts.meters.shutdown()
        parts.tracers.shutdown()
        return [span.name for span in parts.spans.get_finished_spans()]

    assert forked(child) == ["span"]


def test_a_late_thread_works_where_it_is_awaited_if_no_thread_can_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    done: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    thread = late_threads.LateThread(lambda: done.append("done"), "late")
    thread.wake()
    assert done == []
    thread.join()
    thread.join()
    assert done == ["done"]


def test_connections_of_the_parent_are_not_the_childs(begin: Callable[..., Parts]) -> None:
    parts = begin()
    exporter = OTLPSpanExporter("http://127.0.0.1:1/v1/traces", timeout=0.01)
    parts.tracers.add_span_processor(BatchSpanProcessor(exporter))
    session = exporter._client._transport._session  # type: ignore[attr-defined]
    session.headers["x-of-the-user"] = "kept"
    ours = session.get_adapter("http://").poolmanager

    def child() -> Any:
        before = session.get_adapter("http://").poolmanager is ours
        exporter.export([])
        adapter = session.get_adapter("http://")
        return [before, adapter.poolmanager is ours, session.headers["x-of-the-user"]]

    assert forked(child) == [True, False, "kept"]
    assert session.get_adapter("http://").poolmanager is ours


def test_a_part_that_cannot_be_renewed_is_left_to_the_sdk(
    begin: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ValueError("built in another way")

    parts = begin()
    monkeypatch.setattr(identity.Identity, "renew", fail)
    of_child = forked(parts.ids)
    assert len(set(of_child)) == 1
    assert of_child[0] != parts.ids()[0]


def test_removed_it_leaves_forks_to_the_sdk(begin: Callable[..., Parts], safety: fork.ForkSafety) -> None:
    parts = begin({"service.instance.id": "pod-1"})
    safety.remove()
    safety.remove()
    counter = parts.meters.get_meter("test").create_counter("counter")
    counter.add(5)

    def child() -> Any:
        counter.add(1)
        return [values(parts.cumulative), parts.ids()[0].startswith("pod-1")]

    assert forked(child) == [{"counter": 6}, False]


def test_the_global_providers_are_the_ones_that_are_renewed() -> None:
    expected = (trace.get_tracer_provider(), _logs.get_logger_provider(), metrics.get_meter_provider())
    assert all(each in expected for each in fork._providers())


class Channelled:
    """As far as a pause looks at it, a batch processor with a gRPC exporter."""

    def __init__(self) -> None:
        self._export_lock = threading.Lock()
        self._exporter = type("Exporter", (), {"_initialize_channel_and_stub": None})()


def test_a_fork_waits_for_grpc_exports_and_no_longer_than_it_may() -> None:
    idle, busy, over_http = Channelled(), Channelled(), Channelled()
    over_http._exporter = object()
    busy._export_lock.acquire()
    seen: list[list[bool]] = []
    pause = ForkPause(lambda: (busy, idle, over_http))
    pause.install()
    pause.install()
    undo = fork_hook.before_fork(
        lambda: seen.append([each._export_lock.locked() for each in (idle, over_http)])
    )
    try:
        assert forked(lambda: "the child goes on") == "the child goes on"
        busy._export_lock.release()
        forked(lambda: None)
    finally:
        undo()
        pause.remove()
    forked(lambda: None)
    assert seen == [[True, False], [True, False]]
    assert not idle._export_lock.locked()
    assert not busy._export_lock.locked()
