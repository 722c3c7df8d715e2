"""Collections that go wrong, overlap, or are cut short by a fork."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    NumberDataPoint,
)

from otel_concurrency.signals.readings import SumReading
from otel_concurrency.signals.streams import Stream
from tests.signals.expected import (
    DELTA,
    MADE,
    ONE_OF_EACH,
    counter,
)


def test_a_failing_source_is_logged_once_and_hurts_nobody(
    serve, source, make_source, producer, heard, cumulative, caplog
):
    """The SDK's metrics and other sources' arrive; the log has one record with the reason."""
    source.readings = ONE_OF_EACH
    bad = make_source(error=ZeroDivisionError("no"))
    producer.register(bad)
    meter = serve(cumulative).get_meter("app")
    meter.create_counter("orders").add(7)
    with caplog.at_level(logging.DEBUG, logger="otel_concurrency"):
        for _ in range(3):
            (resource_metrics,) = cumulative.get_metrics_data().resource_metrics
            assert [scope.scope.name for scope in resource_metrics.scope_metrics] == [
                "app",
                "otel_concurrency",
            ]
    (record,) = caplog.records
    assert record.name == "otel_concurrency.signals.producer"
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is ZeroDivisionError
    assert record.getMessage() == "<GivenSource> failed and its metrics are missing; said once"


def test_a_source_that_recovers_has_lost_nothing(serve, source, clock, heard, delta):
    source.readings = [SumReading(MADE, [({}, 3)])]
    serve(delta)
    heard(delta)
    clock.now, source.error = 2_000, ValueError("busy")
    assert heard(delta) == []
    clock.now, source.error = 3_000, None
    source.readings = [SumReading(MADE, [({}, 10)])]
    assert heard(delta) == [counter(MADE, [NumberDataPoint({}, 1_000, 3_000, 7)], DELTA)]


def test_trouble_in_our_own_code_leaves_the_sdks_collection_alone(
    serve, source, cumulative, monkeypatch, caplog
):
    source.readings = ONE_OF_EACH
    serve(cumulative).get_meter("app").create_counter("orders").add(7)
    monkeypatch.setattr("otel_concurrency.signals.streams.exponential_point", None)
    for _ in range(2):
        (resource_metrics,) = cumulative.get_metrics_data().resource_metrics
        assert [scope.scope.name for scope in resource_metrics.scope_metrics] == ["app"]
    assert [record.exc_info[0] for record in caplog.records] == [TypeError]


def test_an_exception_of_the_sdk_passes_through(serve, producer, cumulative):
    provider = MeterProvider([cumulative], shutdown_on_exit=False)

    def fails(reader, **kwargs):
        raise LookupError("theirs")

    cumulative._set_collect_callback(fails)
    producer.attach(provider)
    for _ in range(2):
        with pytest.raises(LookupError, match="theirs"):
            cumulative.collect()


def test_a_source_that_makes_a_reader_collect_does_not_lock_up(serve, source, heard, cumulative, delta):
    """What it hears inside is the SDK's alone; the collection that is under way goes on."""
    inside = []
    source.readings = [SumReading(MADE, [({}, 3)])]
    source.on_collect = lambda: inside.append(delta.get_metrics_data())
    serve(cumulative, delta)
    assert heard(cumulative) == [counter(MADE, [NumberDataPoint({}, 500, 1_000, 3)])]
    assert inside == [None]


def test_deltas_of_collections_at_the_same_time_add_up(serve, source, heard, delta):
    """Four threads collect for one delta reader while the total grows: nothing is lost or told twice."""
    total = iter(range(1, 1_000_000))
    source.on_collect = lambda: setattr(source, "readings", [SumReading(MADE, [({}, next(total))])])
    told = []
    reader = InMemoryMetricReader(preferred_temporality={**delta._preferred_temporality})
    reader._receive_metrics = lambda data, **kwargs: told.append(data)
    serve(reader)
    start = threading.Barrier(4)

    def collect():
        start.wait(10)
        for _ in range(200):
            reader.collect()

    threads = [threading.Thread(target=collect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    points = [
        point
        for data in told
        for resource_metrics in data.resource_metrics
        for point in resource_metrics.scope_metrics[0].metrics[0].data.data_points
    ]
    assert sum(point.value for point in points) == 800
    assert min(point.value for point in points) == 1


def test_a_reader_that_collects_twice_at_once_hears_totals_in_order(serve, source, delta, monkeypatch):
    """The first is held up after it has read; the second waits, or it would tell the later total first."""
    total = iter(range(1, 10))
    source.on_collect = lambda: setattr(source, "readings", [SumReading(MADE, [({}, next(total))])])
    told = []
    delta._receive_metrics = lambda data, **kwargs: told.append(
        data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0].value
    )
    serve(delta)
    reading, go_on = threading.Event(), threading.Event()
    tell = Stream.tell

    def tell_held_up(*args):
        if not reading.is_set():
            reading.set()
            go_on.wait(30)
        return tell(*args)

    monkeypatch.setattr(Stream, "tell", tell_held_up)
    first, second = (threading.Thread(target=delta.collect) for _ in range(2))
    first.start()
    assert reading.wait(30)
    second.start()
    second.join(0.2)  # it would be through by now, had it not to wait
    go_on.set()
    first.join(30)
    second.join(30)
    assert told == [1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of threads in the parent
def test_a_forked_child_begins_anew(serve, source, clock, heard, cumulative, delta):
    """The child's totals start with it, even where they pass the parent's before they are read."""
    source.readings = [SumReading(MADE, [({}, 3)])]
    serve(cumulative, delta)
    heard(cumulative)
    heard(delta)
    clock.now = 2_000
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that hangs ends
        told = b"nothing"
        try:
            clock.now = 3_000
            source.readings = [SumReading(MADE, [({}, 5)])]
            point, delta_point = (heard(reader)[0].data.data_points[0] for reader in (cumulative, delta))
            told = repr(
                [
                    (each.start_time_unix_nano, each.time_unix_nano, each.value)
                    for each in (point, delta_point)
                ]
            ).encode()
        finally:
            os.write(write_end, told)
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as child_says:
        told = child_says.read().decode()
    os.waitpid(child, 0)
    assert told == "[(2000, 3000, 5), (2000, 3000, 5)]"
    assert heard(cumulative) == [counter(MADE, [NumberDataPoint({}, 500, 2_000, 3)])]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_is_forked_in_mid_collection_can_collect(serve, source, heard, cumulative):
    """Another thread holds our lock at the fork; the child has nobody to release it, and needs none."""
    inside, go_on = threading.Event(), threading.Event()
    source.readings = [SumReading(MADE, [({}, 3)])]

    def wait_inside():
        inside.set()
        go_on.wait(30)

    late = InMemoryMetricReader()
    provider = serve(cumulative)
    provider.add_metric_reader(late)
    source.on_collect = wait_inside
    collector = threading.Thread(target=late.collect)
    collector.start()
    assert inside.wait(30)
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that hangs ends
        told = b"nothing"
        try:
            source.on_collect = lambda: None
            told = str(heard(cumulative)[0].data.data_points[0].value).encode()
        finally:
            os.write(write_end, told)
            os._exit(0)
    go_on.set()
    collector.join(30)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as child_says:
        assert child_says.read() == b"3"
    os.waitpid(child, 0)
