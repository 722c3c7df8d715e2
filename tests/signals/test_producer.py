"""The producer and the readers of the real SDK: who hears what, how often, and what survives."""

from __future__ import annotations

import io
import json
import logging
import os
import threading

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal.point import (
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Gauge,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, generate_latest

from otel_concurrency._version import __version__
from otel_concurrency.probes.histogram import HistogramState, bucket_position
from otel_concurrency.signals.names import Instrument
from otel_concurrency.signals.points import EXPLICIT_BOUNDS_S
from otel_concurrency.signals.producer import MetricProducer, default_producer
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, SumReading
from otel_concurrency.signals.streams import Stream

CUMULATIVE = AggregationTemporality.CUMULATIVE
DELTA = AggregationTemporality.DELTA
SCOPE = InstrumentationScope("otel_concurrency", __version__)

MADE = Instrument("made", "{task}", "counter", "Things made")
BUSY = Instrument("busy", "s", "counter", "Time spent")
LEVEL = Instrument("level", "{task}", "updowncounter", "Things there")
AGE = Instrument("age", "s", "gauge", "Age of the oldest")
TOOK = Instrument("took", "s", "histogram", "How long it took")

QUICK_NS, SLOW_NS = 1_500_000, 3_000_000_000
QUICK, SLOW = bucket_position(QUICK_NS), bucket_position(SLOW_NS)
TWO = HistogramState(
    count=3,
    sum_ns=QUICK_NS + SLOW_NS,
    min_ns=0,
    max_ns=SLOW_NS,
    zero_count=1,
    first_position=QUICK,
    bucket_counts=(1, *(0,) * (SLOW - QUICK - 1), 1),
)
ONE_OF_EACH = [
    SumReading(MADE, [({"of": "a"}, 3), ({"of": "b"}, 4)]),
    SumReading(BUSY, [({}, 1_500_000_000)]),
    SumReading(LEVEL, [({}, 2)]),
    GaugeReading(AGE, [({}, 250_000_000)]),
    HistogramReading(TOOK, [({"of": "a"}, TWO)]),
]


def metric(instrument, data):
    return Metric(instrument.name, instrument.description, instrument.unit, data)


def counter(instrument, points, temporality=CUMULATIVE):
    return metric(instrument, Sum(points, temporality, is_monotonic=True))


def exponential(attributes, start, at, state, temporality=CUMULATIVE, exemplars=()):
    return ExponentialHistogram(
        [
            ExponentialHistogramDataPoint(
                attributes,
                start,
                at,
                state.count,
                state.sum_ns / 1e9,
                3,
                state.zero_count,
                Buckets(-240 + state.first_position, state.bucket_counts),
                Buckets(0, ()),
                0,
                state.min_ns / 1e9,
                state.max_ns / 1e9,
                exemplars,
            )
        ],
        temporality,
    )


EVERYTHING = [
    counter(MADE, [NumberDataPoint({"of": "a"}, 500, 1_000, 3), NumberDataPoint({"of": "b"}, 500, 1_000, 4)]),
    counter(BUSY, [NumberDataPoint({}, 500, 1_000, 1.5)]),
    metric(LEVEL, Sum([NumberDataPoint({}, 500, 1_000, 2)], CUMULATIVE, is_monotonic=False)),
    metric(AGE, Gauge([NumberDataPoint({}, None, 1_000, 0.25)])),
    metric(TOOK, exponential({"of": "a"}, 500, 1_000, TWO)),
]


class KeepingExporter(MetricExporter):
    """Keeps what is exported."""

    def __init__(self):
        super().__init__()
        self.exported = []
        self.arrived = threading.Event()

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.exported.append(metrics_data)
        self.arrived.set()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass


def test_a_reader_hears_every_kind_though_the_sdk_itself_has_nothing(serve, source, cumulative):
    """Without one instrument of the SDK, our metrics still arrive, under the provider's resource."""
    source.readings = ONE_OF_EACH
    serve(cumulative)
    resource = Resource({"service.name": "shop"})
    expected = MetricsData([ResourceMetrics(resource, [ScopeMetrics(SCOPE, EVERYTHING, "")], "")])
    assert cumulative.get_metrics_data() == expected
    assert cumulative.get_metrics_data() == expected  # and a cumulative reader hears the same again


def test_our_metrics_stand_beside_those_of_the_sdk(serve, source, cumulative):
    source.readings = ONE_OF_EACH
    serve(cumulative).get_meter("app").create_counter("orders").add(7)
    (resource_metrics,) = cumulative.get_metrics_data().resource_metrics
    theirs, ours = resource_metrics.scope_metrics
    assert (theirs.scope.name, [(m.name, m.data.data_points[0].value) for m in theirs.metrics]) == (
        "app",
        [("orders", 7)],
    )
    assert ours == ScopeMetrics(SCOPE, EVERYTHING, "")


def test_what_the_sdk_collects_for_our_scope_is_joined_with_ours(serve, source, cumulative):
    """The OTLP encoder keeps one entry per scope: two would lose one of them."""
    source.readings = ONE_OF_EACH
    serve(cumulative).get_meter("otel_concurrency", __version__).create_counter("spans").add(1)
    data = cumulative.get_metrics_data()
    (resource_metrics,) = data.resource_metrics
    assert [[m.name for m in scope.metrics] for scope in resource_metrics.scope_metrics] == [
        ["spans", "made", "busy", "level", "age", "took"]
    ]
    (encoded,) = encode_metrics(data).resource_metrics
    assert [m.name for m in encoded.scope_metrics[0].metrics] == [
        "spans",
        "made",
        "busy",
        "level",
        "age",
        "took",
    ]


def test_a_delta_reader_hears_the_difference_to_what_it_heard_last(serve, source, clock, delta, heard):
    source.readings = ONE_OF_EACH
    serve(delta)
    first = heard(delta)
    assert [m.data.data_points[0].start_time_unix_nano for m in first] == [500, 500, 500, None, 500]
    assert [m.name for m in first] == ["made", "busy", "level", "age", "took"]

    clock.now = 2_000
    one_more = HistogramState(4, TWO.sum_ns + QUICK_NS, 0, SLOW_NS, 1, QUICK, (2, *TWO.bucket_counts[1:]))
    source.readings = [
        SumReading(MADE, [({"of": "a"}, 5), ({"of": "b"}, 4), ({"of": "c"}, 1)]),
        SumReading(BUSY, [({}, 1_750_000_000)]),
        SumReading(LEVEL, [({}, 1)]),
        GaugeReading(AGE, [({}, 350_000_000)]),
        HistogramReading(TOOK, [({"of": "a"}, one_more), ({"of": "b"}, TWO)]),
    ]
    second = heard(delta)
    unset = None
    assert second == [
        counter(
            MADE,
            [NumberDataPoint({"of": "a"}, 1_000, 2_000, 2), NumberDataPoint({"of": "c"}, 1_000, 2_000, 1)],
            DELTA,
        ),
        counter(BUSY, [NumberDataPoint({}, 1_000, 2_000, 0.25)], DELTA),
        metric(LEVEL, Sum([NumberDataPoint({}, 1_000, 2_000, -1)], DELTA, is_monotonic=False)),
        metric(AGE, Gauge([NumberDataPoint({}, None, 2_000, 0.35)])),
        metric(
            TOOK,
            ExponentialHistogram(
                [
                    ExponentialHistogramDataPoint(
                        {"of": "a"},
                        1_000,
                        2_000,
                        1,
                        0.0015,
                        3,
                        0,
                        Buckets(-240 + QUICK, (1,)),
                        Buckets(0, ()),
                        0,
                        unset,
                        unset,
                        (),
                    ),
                    *exponential({"of": "b"}, 1_000, 2_000, TWO).data_points,
                ],
                DELTA,
            ),
        ),
    ]

    clock.now = 3_000
    assert heard(delta) == [metric(AGE, Gauge([NumberDataPoint({}, None, 3_000, 0.35)]))]


def test_each_reader_has_its_own_past(serve, source, clock, heard, cumulative, delta):
    """A reader that collects often takes nothing away from one that seldom does."""
    serve(cumulative, delta)
    for now, total in ((1_000, 3), (2_000, 5), (3_000, 5)):
        clock.now = now
        source.readings = [SumReading(MADE, [({}, total)])]
        assert heard(cumulative) == [counter(MADE, [NumberDataPoint({}, 500, now, total)])]
    assert heard(delta) == [counter(MADE, [NumberDataPoint({}, 500, 3_000, 5)], DELTA)]


def test_a_low_memory_reader_gets_running_totals(serve, source, heard):
    """The OTLP exporters' LOWMEMORY: delta for what is added to, cumulative for what is read, as ours are."""
    from opentelemetry.sdk.metrics import Counter

    reader = InMemoryMetricReader(preferred_temporality={Counter: DELTA})
    source.readings = [SumReading(MADE, [({}, 3)])]
    serve(reader)
    heard(reader)
    assert heard(reader) == [counter(MADE, [NumberDataPoint({}, 500, 1_000, 3)])]


def test_a_reader_that_is_added_later_hears_us(serve, source, heard, cumulative):
    source.readings = ONE_OF_EACH
    provider = serve(cumulative)
    late = InMemoryMetricReader()
    provider.add_metric_reader(late)
    assert heard(late) == EVERYTHING
    assert heard(cumulative) == EVERYTHING
    provider.remove_metric_reader(late)
    assert heard(cumulative) == EVERYTHING


def test_attached_twice_tells_once(serve, source, producer, heard, cumulative):
    source.readings = ONE_OF_EACH
    provider = serve(cumulative)
    assert producer.attach(provider)
    producer.register(source)
    assert heard(cumulative) == EVERYTHING


def test_detaching_restores_the_callbacks_of_all_readers(producer, cumulative):
    provider = MeterProvider([cumulative], shutdown_on_exit=False)
    original = cumulative._collect
    producer.attach(provider)
    late = InMemoryMetricReader()
    provider.add_metric_reader(late)
    assert cumulative._collect != original
    producer.detach()
    assert (cumulative._collect, late._collect) == (original, original)
    assert provider._measurement_consumer.collect == original
    assert "collect" not in vars(provider._measurement_consumer)
    provider.shutdown()


def test_a_later_wrapper_survives_our_removal(serve, source, producer, heard, cumulative):
    source.readings = ONE_OF_EACH
    serve(cumulative)
    calls = []
    ours = cumulative._collect

    def theirs(reader, **kwargs):
        calls.append(kwargs)
        return ours(reader, **kwargs)

    cumulative._set_collect_callback(theirs)
    assert heard(cumulative) == EVERYTHING
    producer.detach()
    assert cumulative._collect is theirs
    assert heard(cumulative) == []
    assert len(calls) == 2


def test_attaching_again_after_a_later_wrapper_tells_once(serve, source, producer, heard, cumulative):
    """Two of our wrappers may then lead into each other; one of them speaks."""
    source.readings = ONE_OF_EACH
    provider = serve(cumulative)
    ours = cumulative._collect
    cumulative._set_collect_callback(lambda reader, **kwargs: ours(reader, **kwargs))
    producer.detach()
    assert producer.attach(provider)
    assert heard(cumulative) == EVERYTHING


def test_attaching_to_another_provider_leaves_the_first(serve, source, heard, cumulative, delta):
    source.readings = ONE_OF_EACH
    serve(cumulative)
    serve(delta)
    assert heard(cumulative) == []
    assert [m.name for m in heard(delta)] == ["made", "busy", "level", "age", "took"]


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


@pytest.mark.parametrize("provider", [NoOpMeterProvider(), None, "disabled"])
def test_a_provider_without_readers_is_declined(producer, provider, monkeypatch, caplog):
    if provider == "disabled":
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        provider = MeterProvider(shutdown_on_exit=False)
    assert not producer.attach(provider)
    assert caplog.records == []
    assert repr(producer) == "<MetricProducer [detached, 1 sources, 0 readers]>"


def test_an_sdk_that_is_built_differently_is_left_alone(producer, cumulative, caplog):
    provider = MeterProvider([cumulative], shutdown_on_exit=False)
    original = cumulative._collect
    del provider._measurement_consumer
    assert not producer.attach(provider)
    assert cumulative._collect == original
    assert [record.exc_info[0] for record in caplog.records] == [AttributeError]


def test_an_unregistered_source_is_silent_and_its_successor_begins_anew(
    serve, source, make_source, producer, clock, heard, cumulative
):
    source.readings = [SumReading(MADE, [({}, 9)])]
    serve(cumulative)
    heard(cumulative)
    producer.unregister(source)
    producer.unregister(source)
    clock.now = 2_000
    assert heard(cumulative) == []
    producer.register(make_source(start_unix_ns=2_500, readings=[SumReading(MADE, [({}, 12)])]))
    clock.now = 3_000
    assert heard(cumulative) == [counter(MADE, [NumberDataPoint({}, 2_500, 3_000, 12)])]


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
    """The first collection is held up after it has read; the second waits, or it would tell the later total."""
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


def test_force_flush_and_shutdown_include_us(serve, source, clock):
    exporter = KeepingExporter()
    provider = serve(PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000))
    for now, total in ((1_000, 1), (2_000, 2)):
        clock.now = now
        source.readings = [SumReading(MADE, [({}, total)])]
        provider.force_flush()
    clock.now = 3_000
    source.readings = [SumReading(MADE, [({}, 3)])]
    provider.shutdown()
    assert [
        [m for scope in data.resource_metrics[0].scope_metrics for m in scope.metrics]
        for data in exporter.exported
    ] == [
        [counter(MADE, [NumberDataPoint({}, 500, now, total)])]
        for now, total in ((1_000, 1), (2_000, 2), (3_000, 3))
    ]


def test_the_ticking_thread_of_a_periodic_reader_tells_us(serve, source):
    exporter = KeepingExporter()
    source.readings = [SumReading(MADE, [({}, 1)])]
    serve(PeriodicExportingMetricReader(exporter, export_interval_millis=10))
    exporter.exported.clear()
    exporter.arrived.clear()
    assert exporter.arrived.wait(30)
    (resource_metrics,) = exporter.exported[-1].resource_metrics
    assert [m.name for m in resource_metrics.scope_metrics[0].metrics] == ["made"]


def test_the_console_exporter_prints_us(serve, source):
    out = io.StringIO()
    source.readings = ONE_OF_EACH
    serve(
        PeriodicExportingMetricReader(ConsoleMetricExporter(out), export_interval_millis=3_600_000)
    ).force_flush()
    printed = json.loads(out.getvalue())["resource_metrics"][0]["scope_metrics"][0]
    assert printed["scope"]["name"] == "otel_concurrency"
    points = {m["name"]: m["data"]["data_points"] for m in printed["metrics"]}
    assert {name: [point.get("value") for point in of] for name, of in points.items()} == {
        "made": [3, 4],
        "busy": [1.5],
        "level": [2],
        "age": [0.25],
        "took": [None],
    }
    (took,) = points["took"]
    assert (took["count"], took["sum"], took["scale"], took["zero_count"]) == (3, 3.0015, 3, 1)


def test_prometheus_gets_explicit_bounds_and_warns_of_nothing(serve, source, caplog):
    registry = CollectorRegistry()
    source.readings = ONE_OF_EACH
    serve(PrometheusMetricReader(registry=registry))
    text = generate_latest(registry).decode()
    scope = f'otel_scope_name="otel_concurrency",otel_scope_schema_url="",otel_scope_version="{__version__}"'
    samples = [
        line.replace(scope, "scope")
        for line in text.splitlines()
        if not line.startswith("#") and "target_info" not in line and "_bucket" not in line
    ]
    assert samples == [
        'made_total{of="a",scope} 3.0',
        'made_total{of="b",scope} 4.0',
        "busy_seconds_total{scope} 1.5",
        "level{scope} 2.0",
        "age_seconds{scope} 0.25",
        'took_seconds_count{of="a",scope} 3.0',
        'took_seconds_sum{of="a",scope} 3.0015',
    ]
    buckets = [line.rsplit(" ", 1)[1] for line in text.splitlines() if "_bucket" in line]
    below = [1 + (bound >= 0.0015) + (bound >= 3) for bound in EXPLICIT_BOUNDS_S]
    assert [float(value) for value in buckets] == [*below, 3]
    assert caplog.records == []


@pytest.mark.parametrize("how", ["variable", "argument"])
def test_explicit_bounds_for_all_who_ask(source, clock, heard, cumulative, monkeypatch, how):
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "explicit_bucket_histogram" if how == "variable" else "base2_exponential_bucket_histogram",
    )
    producer = MetricProducer(clock=clock, explicit_histograms=None if how == "variable" else True)
    producer.register(source)
    source.readings = [HistogramReading(TOOK, [({}, TWO)])]
    assert producer.attach(MeterProvider([cumulative], shutdown_on_exit=False))
    counts = [0] * (len(EXPLICIT_BOUNDS_S) + 1)
    counts[0] = 1  # the value of zero
    counts[EXPLICIT_BOUNDS_S.index(2**-9)] = 1  # 1.5 ms is more than 2**-10 s
    counts[EXPLICIT_BOUNDS_S.index(4)] = 1  # 3 s
    point = HistogramDataPoint({}, 500, 1_000, 3, 3.0015, counts, EXPLICIT_BOUNDS_S, 0, 3, ())
    assert heard(cumulative) == [metric(TOOK, Histogram([point], CUMULATIVE))]


def test_otlp_carries_what_the_reader_heard(serve, source, cumulative):
    source.readings = ONE_OF_EACH
    serve(cumulative)
    request = encode_metrics(cumulative.get_metrics_data())
    decoded = type(request).FromString(request.SerializeToString())
    (scope_metrics,) = decoded.resource_metrics[0].scope_metrics
    assert (scope_metrics.scope.name, scope_metrics.scope.version) == ("otel_concurrency", __version__)
    made, busy, level, age, took = scope_metrics.metrics
    assert [(m.name, m.unit, m.description) for m in scope_metrics.metrics] == [
        (each.name, each.unit, each.description) for each in (MADE, BUSY, LEVEL, AGE, TOOK)
    ]
    assert [point.as_int for point in made.sum.data_points] == [3, 4]
    assert (made.sum.is_monotonic, level.sum.is_monotonic) == (True, False)
    assert (busy.sum.data_points[0].as_double, age.gauge.data_points[0].as_double) == (1.5, 0.25)
    (point,) = took.exponential_histogram.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano) == (500, 1_000)
    assert (point.count, point.sum, point.zero_count, point.scale) == (3, 3.0015, 1, 3)
    assert (point.HasField("min"), point.min, point.HasField("max"), point.max) == (True, 0.0, True, 3.0)
    base = 2 ** (2**-point.scale)
    bounds = [
        (base ** (point.positive.offset + i), base ** (point.positive.offset + i + 1))
        for i, bucket in enumerate(point.positive.bucket_counts)
        if bucket
    ]
    (quick_low, quick_high), (slow_low, slow_high) = bounds
    assert quick_low < 0.0015 <= quick_high
    assert slow_low < 3 <= slow_high


def test_otlp_leaves_out_the_extremes_that_a_delta_does_not_know(serve, source, delta):
    source.readings = [HistogramReading(TOOK, [({}, TWO)])]
    serve(delta)
    delta.get_metrics_data()
    more = HistogramState(4, TWO.sum_ns + QUICK_NS, 0, SLOW_NS, 1, QUICK, (2, *TWO.bucket_counts[1:]))
    source.readings = [HistogramReading(TOOK, [({}, more)])]
    request = encode_metrics(delta.get_metrics_data())
    (point,) = request.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points
    assert (point.HasField("min"), point.HasField("max"), point.count) == (False, False, 1)


def test_the_default_producer_is_one_and_tells_what_it_costs(heard, cumulative):
    provider = MeterProvider([cumulative], shutdown_on_exit=False)
    assert default_producer() is default_producer()
    assert default_producer().attach(provider)
    try:
        heard(cumulative)
        (cost,) = [m for m in heard(cumulative) if m.name == "otel_concurrency.overhead.time"]
    finally:
        default_producer().detach()
    (point,) = cost.data.data_points
    assert (cost.unit, dict(point.attributes)) == ("s", {"otel_concurrency.component": "collection"})
    assert 0 < point.value < 10


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
