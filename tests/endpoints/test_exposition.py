"""What is written is what Prometheus' own parsers read."""

from __future__ import annotations

import math
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics._internal.point import Buckets, ExponentialHistogramDataPoint
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_concurrency.endpoints.exposition import LEFT_OUT, Exposition
from otel_concurrency.endpoints.histogram_buckets import exponential_buckets
from otel_concurrency.endpoints.scraping import ScrapeReader

SCOPE = {"otel_scope_name": "shop", "otel_scope_version": "1.2"}


@pytest.fixture
def reader() -> ScrapeReader:
    return ScrapeReader()


@pytest.fixture
def provider(reader: ScrapeReader) -> Any:
    provider = MeterProvider(
        [reader],
        resource=Resource({"service.name": 'sh"o\\p\n'}),
        views=[View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())],
        exemplar_filter=AlwaysOnExemplarFilter(),
        shutdown_on_exit=False,
    )
    yield provider
    provider.shutdown()


def told(reader: ScrapeReader, **options: Any) -> tuple[str, str]:
    """Both formats of one collection."""
    data = reader.read()
    texts = []
    for openmetrics in (False, True):
        exposition = Exposition(openmetrics=openmetrics, **options)
        exposition.add(data)
        texts.append(exposition.text())
    return texts[0], texts[1]


def samples(families: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset({**labels, **SCOPE}.items())


def test_both_formats_tell_every_value(reader: ScrapeReader, provider: MeterProvider) -> None:
    meter = provider.get_meter("shop", "1.2")
    orders = meter.create_counter("orders", "{order}", 'all "orders"\nof \\ the day')
    orders.add(2, {"kind": 'a"b\\c\nd', "n.o": 7, "is.new": True})
    orders.add(3.5)
    meter.create_up_down_counter("open", "1").add(-4)
    meter.create_gauge("fill", "1").set(0.25)
    durations = meter.create_histogram("time", "s", explicit_bucket_boundaries_advisory=[0.1, 1])
    for value in (0.05, 0.1, 0.5, 7):
        durations.record(value)
    text, openmetrics = told(reader)
    expected = {
        ("target_info", frozenset({("service_name", 'sh"o\\p\n')})): 1,
        series("orders_total", kind='a"b\\c\nd', n_o="7", is_new="true"): 2,
        series("orders_total"): 3.5,
        series("open"): -4,
        series("fill_ratio"): 0.25,
        series("time_seconds_bucket", le="0.1"): 2,
        series("time_seconds_bucket", le="1.0"): 3,
        series("time_seconds_bucket", le="+Inf"): 4,
        series("time_seconds_sum"): 7.65,
        series("time_seconds_count"): 4,
    }
    assert samples(parse_text(text)) == expected
    assert samples(parse_openmetrics(openmetrics)) == expected
    families = {family.name: family for family in parse_openmetrics(openmetrics)}
    assert {name: family.type for name, family in families.items()} == {
        "target": "info",
        "orders": "counter",
        "open": "gauge",
        "fill_ratio": "gauge",
        "time_seconds": "histogram",
    }
    assert families["orders"].documentation == 'all "orders"\nof \\ the day'


def test_openmetrics_has_exemplars_in_the_bucket_they_fell_into(
    reader: ScrapeReader, provider: MeterProvider
) -> None:
    meter = provider.get_meter("shop", "1.2")
    orders = meter.create_counter("orders")
    durations = meter.create_histogram("time", "s", explicit_bucket_boundaries_advisory=[0.1, 1])
    durations.record(0.01)  # in no trace: nobody could look it up
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s") as span:
        durations.record(0.5)
        orders.add(1)
    context = span.get_span_context()
    ids = {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }
    text, openmetrics = told(reader)
    assert "trace_id" not in text
    found = {
        (sample.name, sample.labels.get("le")): (sample.exemplar.labels, sample.exemplar.value)
        for family in parse_openmetrics(openmetrics)
        for sample in family.samples
        if sample.exemplar
    }
    assert found == {("time_seconds_bucket", "1.0"): (ids, 0.5), ("orders_total", None): (ids, 1)}


def test_an_exponential_histogram_has_powers_of_two_for_bounds(
    reader: ScrapeReader, provider: MeterProvider
) -> None:
    values = [0.0, 0.3, 0.5, 0.6, 1.5, 1.9, 100.0]
    exponential = provider.get_meter("shop", "1.2").create_histogram("exponential")
    for value in values:
        exponential.record(value)
    text, openmetrics = told(reader)
    for found in (samples(parse_text(text)), samples(parse_openmetrics(openmetrics))):
        buckets = {
            dict(labels)["le"]: count for (name, labels), count in found.items() if name.endswith("_bucket")
        }
        assert buckets == {"0.0": 1, "0.5": 3, "1.0": 4, "2.0": 6, "128.0": 7, "+Inf": 7}
        assert found[series("exponential_sum")] == pytest.approx(sum(values))


@pytest.mark.parametrize("scale", [-3, -1, 0, 1, 5, 20])
def test_joined_buckets_lose_and_move_nothing(scale: int) -> None:
    """Each bucket of every scale lies whole between two of the bounds."""
    base = 2.0**2.0**-scale
    offset, counts = -7, (1, 0, 2, 3, 0, 0, 5, 1, 1, 4)
    point = ExponentialHistogramDataPoint(
        {}, 0, 0, 2 * sum(counts) + 9, 0, scale, 9, Buckets(offset, counts), Buckets(offset, counts), 0, 0, 0
    )
    buckets = exponential_buckets(point)
    assert buckets[-1] == (math.inf, point.count)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    for bound, count in buckets[:-1]:
        positive = sum(
            number for index, number in enumerate(counts, offset) if base ** (index + 1) <= bound * (1 + 1e-9)
        )
        negative = sum(
            number for index, number in enumerate(counts, offset) if -(base**index) <= bound * (1 - 1e-9)
        )
        assert count == positive + negative + (9 if bound >= 0 else 0), bound


def test_what_prometheus_would_refuse_is_left_out_and_counted(
    reader: ScrapeReader, provider: MeterProvider
) -> None:
    meter = provider.get_meter("shop", "1.2")
    meter.create_counter("a.b").add(1)
    meter.create_counter("a_b").add(2)  # the same series, once it is a name of Prometheus'
    meter.create_gauge("c.total").set(3)
    meter.create_counter("c").add(4)  # the same name, and a counter
    text, openmetrics = told(reader)
    for found in (samples(parse_text(text)), samples(parse_openmetrics(openmetrics))):
        assert found[series("a_b_total")] == 1
        assert found[series("c_total")] == 3
        assert found[LEFT_OUT, frozenset()] == 2


def test_an_answer_has_an_end(reader: ScrapeReader, provider: MeterProvider) -> None:
    counter = provider.get_meter("shop", "1.2").create_counter("many")
    for number in range(100):
        counter.add(1, {"n": number})
    text, openmetrics = told(reader, max_lines=41)
    for found in (samples(parse_text(text)), samples(parse_openmetrics(openmetrics))):
        assert sum(name == "many_total" for name, _ in found) == 40
        assert found[LEFT_OUT, frozenset()] == 60


def test_attributes_that_become_one_label_are_joined(reader: ScrapeReader, provider: MeterProvider) -> None:
    provider.get_meter("shop", "1.2").create_counter("x").add(1, {"a.b": "1", "a-b": "2"})
    assert series("x_total", a_b="2;1") in samples(parse_text(told(reader)[0]))
