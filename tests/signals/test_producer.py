"""Who hears the producer, since when, and how it comes and goes."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal.point import (
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
)
from opentelemetry.sdk.metrics.export import (
    Gauge,
    InMemoryMetricReader,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource

from otel_concurrency._version import __version__
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, SumReading
from tests.signals.expected import (
    AGE,
    BUSY,
    DELTA,
    EVERYTHING,
    LEVEL,
    MADE,
    ONE_OF_EACH,
    QUICK,
    QUICK_NS,
    SCOPE,
    SLOW_NS,
    TOOK,
    TWO,
    counter,
    exponential,
    metric,
)


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


@pytest.mark.parametrize("provider", [NoOpMeterProvider(), None, "disabled"])
def test_a_provider_without_readers_is_declined(producer, provider, monkeypatch, caplog):
    if provider == "disabled":
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        provider = MeterProvider(shutdown_on_exit=False)
    assert not producer.attach(provider)
    assert caplog.records == []
    assert repr(producer) == "<MetricProducer [detached, 1 sources, 0 readers]>"


@pytest.mark.parametrize(
    ("owner", "missing"),
    [
        ("provider", "_measurement_consumer"),
        ("reader", "_set_collect_callback"),
        ("reader", "_instrument_class_temporality"),
    ],
)
def test_an_sdk_that_is_built_differently_is_left_alone(
    producer, cumulative, caplog, monkeypatch, owner, missing
):
    """Whichever of its private parts is gone: it goes on as before, and the log says why we are silent."""
    provider = MeterProvider([cumulative], shutdown_on_exit=False)
    consumer, original = provider._measurement_consumer, cumulative._collect
    target = {"provider": provider, "reader": cumulative}[owner]
    monkeypatch.delattr(target if missing in vars(target) else MetricReader, missing)
    assert not producer.attach(provider)
    assert cumulative._collect == original
    assert "collect" not in vars(consumer)
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
