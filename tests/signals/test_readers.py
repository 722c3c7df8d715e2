"""The readers of the real SDK and its exporters: what reaches the other side, value by value."""

from __future__ import annotations

import io
import json
import threading

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    Histogram,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    NumberDataPoint,
    PeriodicExportingMetricReader,
)
from prometheus_client import CollectorRegistry, generate_latest

from otel_concurrency._version import __version__
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.signals.points import EXPLICIT_BOUNDS_S
from otel_concurrency.signals.producer import MetricProducer
from otel_concurrency.signals.readings import HistogramReading, SumReading
from tests.signals.expected import (
    AGE,
    BUSY,
    CUMULATIVE,
    LEVEL,
    MADE,
    ONE_OF_EACH,
    QUICK,
    QUICK_NS,
    SLOW_NS,
    TOOK,
    TWO,
    counter,
    metric,
)


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
