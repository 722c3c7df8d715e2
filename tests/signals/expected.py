"""Readings of every kind, and the metrics that a cumulative reader makes of them."""

from __future__ import annotations

from opentelemetry.sdk.metrics._internal.point import (
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_concurrency._version import __version__
from otel_concurrency.probes.histogram import HistogramState, bucket_position
from otel_concurrency.signals.names import Instrument
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, SumReading

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
