"""What one reader is told over time: starts, restarts, and series that come and go."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality

from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.signals.names import Instrument
from otel_concurrency.signals.readings import HistogramReading, SumReading
from otel_concurrency.signals.streams import Collected, Stream

CUMULATIVE = AggregationTemporality.CUMULATIVE
DELTA = AggregationTemporality.DELTA

MADE = Instrument("made", "{task}", "counter", "Things made")
LEVEL = Instrument("level", "{task}", "updowncounter", "Things there")
TOOK = Instrument("took", "s", "histogram", "How long it took")


class Listener:
    """A stream with one source that began at 500."""

    def __init__(self, temporality):
        kinds = ("counter", "updowncounter", "gauge", "histogram")
        self.stream = Stream(dict.fromkeys(kinds, temporality), explicit_histograms=False)

    def told(self, at, *readings, serial=0, registered=(0,)):
        """Return attributes, start, end and value (or count) of each point."""
        collected = [Collected(serial, 500, readings)] if readings else []
        return [
            (
                dict(point.attributes),
                point.start_time_unix_nano,
                point.time_unix_nano,
                getattr(point, "value", None) if metric.name != "took" else point.count,
            )
            for metric in self.stream.tell(collected, registered, {}, at)
            for point in metric.data.data_points
        ]


@pytest.fixture
def delta():
    return Listener(DELTA)


@pytest.fixture
def cumulative():
    return Listener(CUMULATIVE)


def made(**totals):
    return SumReading(MADE, [({"of": of}, total) for of, total in totals.items()])


def level(**totals):
    return SumReading(LEVEL, [({"of": of}, total) for of, total in totals.items()])


def took(*values_ns):
    histogram = Histogram()
    for ns in values_ns:
        histogram.observe(ns)
    return HistogramReading(TOOK, [({}, histogram.read())])


def test_a_total_that_went_down_began_anew(cumulative, delta):
    """Its new start is the reader's last reading, since it was not yet down then; no delta is negative."""
    assert cumulative.told(1_000, made(a=9)) == [({"of": "a"}, 500, 1_000, 9)]
    assert cumulative.told(2_000, made(a=2)) == [({"of": "a"}, 1_000, 2_000, 2)]
    assert cumulative.told(3_000, made(a=4)) == [({"of": "a"}, 1_000, 3_000, 4)]
    assert delta.told(1_000, made(a=9)) == [({"of": "a"}, 500, 1_000, 9)]
    assert delta.told(2_000, made(a=2)) == [({"of": "a"}, 1_000, 2_000, 2)]
    assert delta.told(3_000, made(a=4)) == [({"of": "a"}, 2_000, 3_000, 2)]


def test_a_histogram_that_was_emptied_began_anew(cumulative, delta):
    for listener, third_start, third_count in ((cumulative, 1_000, 3), (delta, 2_000, 1)):
        assert listener.told(1_000, took(10, 20, 30)) == [({}, 500, 1_000, 3)]
        assert listener.told(2_000, took(40, 50)) == [({}, 1_000, 2_000, 2)]
        assert listener.told(3_000, took(40, 50, 60)) == [({}, third_start, 3_000, third_count)]


def test_a_histogram_with_other_buckets_began_anew(delta):
    """Emptied and filled beyond its old count between two readings: the buckets tell."""
    assert delta.told(1_000, took(5_000)) == [({}, 500, 1_000, 1)]
    assert delta.told(2_000, took(70_000, 80_000)) == [({}, 1_000, 2_000, 2)]
    assert delta.told(3_000, took(60_000, 70_000, 90_000)) == [({}, 2_000, 3_000, 3)]


def test_a_level_goes_down_without_beginning_anew(cumulative, delta):
    assert cumulative.told(1_000, level(a=9)) == [({"of": "a"}, 500, 1_000, 9)]
    assert cumulative.told(2_000, level(a=2)) == [({"of": "a"}, 500, 2_000, 2)]
    assert delta.told(1_000, level(a=9)) == [({"of": "a"}, 500, 1_000, 9)]
    assert delta.told(2_000, level(a=2)) == [({"of": "a"}, 1_000, 2_000, -7)]


def test_a_series_that_comes_later_began_after_the_last_reading(cumulative, delta):
    for listener in (cumulative, delta):
        listener.told(1_000, made(a=1))
        assert listener.told(2_000, made(a=1, b=5))[-1] == ({"of": "b"}, 1_000, 2_000, 5)
    assert cumulative.told(3_000, made(a=1, b=6))[-1] == ({"of": "b"}, 1_000, 3_000, 6)


def test_a_series_that_went_and_came_back_began_in_between(cumulative):
    cumulative.told(1_000, made(a=5, b=1))
    assert cumulative.told(2_000, made(b=1)) == [({"of": "b"}, 500, 2_000, 1)]
    assert cumulative.told(3_000, made(a=7, b=1))[0] == ({"of": "a"}, 2_000, 3_000, 7)


def test_the_level_of_a_series_that_ended_is_taken_back(delta):
    """A backend adds up the deltas; without the last one it would show a closed loop's tasks for ever."""
    delta.told(1_000, level(a=3, b=2, c=0))
    assert delta.told(2_000, level(b=2)) == [({"of": "a"}, 1_000, 2_000, -3)]
    assert delta.told(3_000, level(b=2)) == []
    assert delta.told(4_000, made(a=0)) == [({"of": "b"}, 3_000, 4_000, -2)]


def test_the_levels_of_a_source_that_left_are_taken_back(delta):
    delta.told(1_000, level(a=3), made(a=3))
    assert delta.told(2_000, registered=()) == [({"of": "a"}, 1_000, 2_000, -3)]
    assert delta.told(3_000, registered=()) == []


def test_a_source_that_could_not_be_read_keeps_its_past(delta):
    delta.told(1_000, level(a=3), made(a=3))
    assert delta.told(2_000, registered=(0,)) == []
    assert delta.told(3_000, level(a=3), made(a=4)) == [({"of": "a"}, 1_000, 3_000, 1)]


def test_no_point_ends_before_it_starts(cumulative, delta):
    """The wall clock was set back."""
    assert cumulative.told(100, made(a=1)) == [({"of": "a"}, 500, 500, 1)]
    delta.told(1_000, made(a=1))
    assert delta.told(900, made(a=3)) == [({"of": "a"}, 1_000, 1_000, 2)]


def test_an_empty_histogram_is_not_told(cumulative):
    assert cumulative.told(1_000, took()) == []


def test_the_deltas_of_a_histogram_add_up_to_it():
    """Bucket by bucket, over many readings, whichever buckets are hit."""
    stream = Listener(DELTA).stream
    histogram = Histogram()
    summed = {}
    total = zeros = 0
    for step in range(200):
        for ns in (step**4, 7**step % 10**12, 0)[step % 3 :]:
            histogram.observe(ns)
        metrics = stream.tell(
            [Collected(0, 0, [HistogramReading(TOOK, [({}, histogram.read())])])], (0,), {}, step + 1
        )
        ((point,),) = [metric.data.data_points for metric in metrics]
        for offset, count in enumerate(point.positive.bucket_counts, point.positive.offset):
            summed[offset] = summed.get(offset, 0) + count
        assert point.positive.bucket_counts == () or 0 not in (
            point.positive.bucket_counts[0],
            point.positive.bucket_counts[-1],
        )
        total += point.count
        zeros += point.zero_count
    state = histogram.read()
    in_whole = enumerate(state.bucket_counts, state.first_position - 240)
    assert (total, zeros) == (state.count, state.zero_count)
    assert {offset: count for offset, count in summed.items() if count} == {
        offset: count for offset, count in in_whole if count
    }
