"""From a probe's exemplar to the reader's: whose trace it shows, who gets it, and how often."""

from __future__ import annotations

import gc
import weakref

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, AlwaysOnExemplarFilter, Exemplar
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_concurrency.probes.histogram import Histogram, HistogramState, ProbeExemplar
from otel_concurrency.signals.names import Instrument
from otel_concurrency.signals.readings import HistogramReading

TOOK = Instrument("took", "s", "histogram", "How long it took")


def context_of(trace_id: int, span_id: int, *, sampled: bool = True) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return trace.set_span_in_context(
        NonRecordingSpan(SpanContext(trace_id, span_id, False, flags)), Context()
    )


IN_TRACE = context_of(0xAB, 0xCD)
UNSAMPLED = context_of(0xEF, 0x12, sampled=False)
OUTSIDE = Context()


class ProbeSource:
    """A source with one histogram of a probe, drained by each collection."""

    start_unix_ns = 500

    def __init__(self) -> None:
        self.histogram = Histogram()

    def collect(self) -> list[HistogramReading]:
        return [HistogramReading(TOOK, [({"of": "a"}, self.histogram.read())])]


@pytest.fixture
def probe(producer, source):
    producer.unregister(source)
    probe = ProbeSource()
    producer.register(probe)
    return probe


@pytest.fixture
def exemplars(heard):
    def exemplars(reader: InMemoryMetricReader) -> list[Exemplar]:
        ((point,),) = [metric.data.data_points for metric in heard(reader)]
        return list(point.exemplars)

    return exemplars


def test_an_exemplar_shows_the_span_its_work_was_created_in(serve, probe, exemplars, cumulative):
    serve(cumulative)
    probe.histogram.observe(3_000_000, IN_TRACE, at_unix_ns=900)
    assert exemplars(cumulative) == [Exemplar({}, 0.003, 900, 0xCD, 0xAB)]
    assert exemplars(cumulative) == []


def test_each_reader_gets_each_exemplar_once(serve, probe, exemplars, cumulative, delta):
    """Whoever collects first drains the probe, and the others still get theirs."""
    serve(cumulative, delta)
    slow, slower = Exemplar({}, 0.001, 1, 0xCD, 0xAB), Exemplar({}, 0.1, 2, 0xCD, 0xAB)
    probe.histogram.observe(1_000_000, IN_TRACE, at_unix_ns=1)
    assert exemplars(cumulative) == [slow]
    probe.histogram.observe(100_000_000, IN_TRACE, at_unix_ns=2)
    assert exemplars(delta) == [slow, slower]
    assert exemplars(cumulative) == [slower]
    assert exemplars(cumulative) == []


def test_what_waits_for_a_reader_that_never_collects_is_bounded(serve, probe, exemplars, cumulative, delta):
    """The slowest four stay, and no context is kept at all."""
    serve(cumulative, delta)
    for ms in range(1, 100):
        probe.histogram.observe(ms * 1_000_000, IN_TRACE, at_unix_ns=ms)
        exemplars(cumulative)
    assert [exemplar.value for exemplar in exemplars(delta)] == [0.096, 0.097, 0.098, 0.099]


def test_no_context_outlives_the_collection(serve, probe, exemplars, cumulative, delta):
    """A context holds whatever the application put into it: a request, say."""
    serve(cumulative, delta)
    request = context_of(0xAB, 0xCD)
    alive = weakref.ref(request)
    probe.histogram.observe(1_000_000, request, at_unix_ns=1)
    del request
    shown = Exemplar({}, 0.001, 1, 0xCD, 0xAB)
    assert exemplars(cumulative) == [shown]
    gc.collect()
    assert alive() is None
    assert exemplars(delta) == [shown]


def test_only_sampled_traces_are_shown(serve, probe, exemplars, cumulative):
    """An exemplar is a link to a trace; one that was not sampled is not there to be looked at."""
    serve(cumulative)
    probe.histogram.observe(1_000_000, UNSAMPLED, at_unix_ns=1)
    probe.histogram.observe(10_000_000, OUTSIDE, at_unix_ns=2)
    probe.histogram.observe(100_000_000, IN_TRACE, at_unix_ns=3)
    assert exemplars(cumulative) == [Exemplar({}, 0.1, 3, 0xCD, 0xAB)]


def test_the_filter_always_on_shows_all(serve, probe, exemplars, cumulative):
    serve(cumulative, exemplar_filter=AlwaysOnExemplarFilter())
    probe.histogram.observe(1_000_000, UNSAMPLED, at_unix_ns=1)
    probe.histogram.observe(10_000_000, OUTSIDE, at_unix_ns=2)
    assert exemplars(cumulative) == [
        Exemplar({}, 0.001, 1, 0x12, 0xEF),
        Exemplar({}, 0.01, 2, None, None),
    ]


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_the_filter_always_off_shows_none(serve, probe, exemplars, cumulative, monkeypatch, how):
    if how == "variable":
        monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")
        serve(cumulative)
    else:
        serve(cumulative, exemplar_filter=AlwaysOffExemplarFilter())
    probe.histogram.observe(1_000_000, IN_TRACE, at_unix_ns=1)
    assert exemplars(cumulative) == []


def test_an_origin_that_is_no_context_is_left_out(serve, probe, exemplars, cumulative):
    serve(cumulative)
    probe.histogram.observe(1_000_000, "somewhere", at_unix_ns=1)
    assert exemplars(cumulative) == []


def test_explicit_histograms_carry_exemplars_too(serve, probe, heard, cumulative, monkeypatch):
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"
    )
    serve(cumulative)
    probe.histogram.observe(1_000_000, IN_TRACE, at_unix_ns=1)
    ((point,),) = [metric.data.data_points for metric in heard(cumulative)]
    assert (len(point.bucket_counts), list(point.exemplars)) == (21, [Exemplar({}, 0.001, 1, 0xCD, 0xAB)])


def test_exemplars_find_the_series_that_they_belong_to(serve, source, heard, cumulative):
    exemplar = ProbeExemplar(200, 1_000_000, 7, IN_TRACE)
    one = HistogramState(1, 1_000_000, 1_000_000, 1_000_000, 0, 200, (1,))
    with_exemplar = HistogramState(1, 1_000_000, 1_000_000, 1_000_000, 0, 200, (1,), (exemplar,))
    other = Instrument("other", "s", "histogram", "Another")
    source.readings = [
        HistogramReading(TOOK, [({"of": "a"}, one), ({"of": "b"}, with_exemplar)]),
        HistogramReading(other, [({"of": "a"}, one), ({"of": "b"}, one)]),
    ]
    serve(cumulative)
    assert [[list(point.exemplars) for point in m.data.data_points] for m in heard(cumulative)] == [
        [[], [Exemplar({}, 0.001, 7, 0xCD, 0xAB)]],
        [[], []],
    ]


def test_otlp_carries_exemplars(serve, probe, cumulative):
    serve(cumulative)
    probe.histogram.observe(3_000_000, IN_TRACE, at_unix_ns=900)
    request = encode_metrics(cumulative.get_metrics_data())
    (point,) = request.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points
    (exemplar,) = point.exemplars
    assert (exemplar.trace_id.hex(), exemplar.span_id.hex()) == (f"{0xAB:032x}", f"{0xCD:016x}")
    assert (exemplar.as_double, exemplar.time_unix_nano) == (0.003, 900)
