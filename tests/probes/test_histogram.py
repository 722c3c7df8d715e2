"""The buckets against brute force, against OpenTelemetry's formula and against the SDK's own mappings."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import (
    LogarithmMapping,
)

from otel_concurrency.probes.histogram import (
    BUCKET_COUNT,
    EXEMPLARS_PER_HISTOGRAM,
    HIGHEST_EXPONENT,
    LOWEST_INDEX,
    MAX_PENDING,
    SCALE,
    UPPER_BOUNDS_NS,
    Histogram,
    HistogramState,
    ProbeExemplar,
    bucket_position,
    merge_states,
    upper_bound_s,
)

SEEDS = range(20)
WHOLE_POWERS = range(-9, HIGHEST_EXPONENT + 1)
"""Exponents whose power of two seconds is a whole number of nanoseconds: 10**9 is 2**9 * 5**9."""


def index_of(ns: int) -> int:
    return LOWEST_INDEX + bucket_position(ns)


def is_in_bucket(ns: int, index: int) -> bool:
    """`base**index < seconds <= base**(index + 1)`, exactly: all to the power of `2**SCALE`."""
    value = Fraction(ns, 10**9) ** (1 << SCALE)
    return Fraction(2) ** index < value <= Fraction(2) ** (index + 1)


def durations(seed: int, count: int = 1_000) -> list[int]:
    chance = random.Random(seed)
    return [min(int(2 ** chance.uniform(0, 45.9)), 2**HIGHEST_EXPONENT * 10**9) or 1 for _ in range(count)]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_duration_is_in_the_bucket_that_the_specification_names(seed):
    """Exactly, by whole-number arithmetic."""
    misplaced = [ns for ns in durations(seed, 300) if not is_in_bucket(ns, index_of(ns))]
    assert misplaced == []


def test_durations_beside_every_bound_are_in_their_bucket():
    """The last nanosecond of each bucket and the first of the next; upper bounds are inclusive."""
    misplaced = []
    for position in range(BUCKET_COUNT - 1):
        bound_ns = math.floor(upper_bound_s(position) * 1e9)
        misplaced += [
            ns
            for ns in (bound_ns - 1, bound_ns, bound_ns + 1)
            if ns > 0 and not is_in_bucket(ns, index_of(ns))
        ]
    assert misplaced == []


@pytest.mark.parametrize("exponent", WHOLE_POWERS)
def test_a_power_of_two_ends_its_bucket(exponent):
    """As in the SDK: an upper bound belongs to the bucket below it, at our scale and at scale 0."""
    seconds = Fraction(2) ** exponent
    ns = int(seconds * 10**9)
    assert Fraction(ns, 10**9) == seconds
    assert index_of(ns) == LogarithmMapping(SCALE).map_to_index(float(seconds)) == (exponent << SCALE) - 1
    assert index_of(ns) >> SCALE == ExponentMapping(0).map_to_index(float(seconds))
    assert upper_bound_s(bucket_position(ns)) == float(seconds)


@pytest.mark.parametrize("exponent", WHOLE_POWERS[:-1])
def test_a_nanosecond_more_than_a_power_of_two_begins_a_bucket(exponent):
    ns = int(Fraction(2) ** exponent * 10**9) + 1
    assert index_of(ns) == LogarithmMapping(SCALE).map_to_index(ns / 1e9) == exponent << SCALE


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sdk_puts_the_same_durations_into_the_same_buckets(seed):
    logarithm, exponent = LogarithmMapping(SCALE), ExponentMapping(0)
    values = durations(seed)
    assert [index_of(ns) for ns in values] == [logarithm.map_to_index(ns / 1e9) for ns in values]
    assert [index_of(ns) >> SCALE for ns in values] == [exponent.map_to_index(ns / 1e9) for ns in values]


def test_the_native_table_has_the_same_buckets():
    native = pytest.importorskip("otel_concurrency.probes._native")
    corners = [*UPPER_BOUNDS_NS, *(1 << bit for bit in range(63)), *range(1, 1_000)]
    near = {int(ns) + step for ns in corners for step in (-1, 0, 1, 2)}
    values = sorted(ns for ns in near if 1 <= ns < 2**63)
    assert [native.bucket_position(ns) for ns in values] == [bucket_position(ns) for ns in values]


def test_what_lasts_longer_than_the_table_counts_in_its_last_bucket():
    longest = 2**HIGHEST_EXPONENT * 10**9
    assert (
        bucket_position(longest) == bucket_position(longest + 1) == bucket_position(2**63) == BUCKET_COUNT - 1
    )


def test_one_nanosecond_has_a_bucket():
    assert is_in_bucket(1, index_of(1))


def test_the_bounds_are_those_of_the_formula():
    base = 2 ** (2**-SCALE)
    bounds = [upper_bound_s(position) for position in range(BUCKET_COUNT)]
    assert bounds == pytest.approx([base ** (LOWEST_INDEX + p + 1) for p in range(BUCKET_COUNT)], rel=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_histogram_agrees_with_brute_force(seed):
    chance = random.Random(seed)
    values = [ns if chance.random() < 0.9 else 0 for ns in durations(seed, chance.randrange(1, 500))]
    histogram = Histogram()
    for ns in values:
        histogram.observe(ns)
    positions = [bucket_position(ns) for ns in values if ns]
    assert histogram.read() == HistogramState(
        count=len(values),
        sum_ns=sum(values),
        min_ns=min(values),
        max_ns=max(values),
        zero_count=values.count(0),
        first_position=min(positions),
        bucket_counts=tuple(positions.count(p) for p in range(min(positions), max(positions) + 1)),
    )


def test_reading_does_not_empty_a_histogram():
    histogram = Histogram()
    histogram.observe(5)
    assert histogram.read() == histogram.read() == HistogramState(1, 5, 5, 5, 0, bucket_position(5), (1,))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_sorted_in_later_is_what_was_observed(seed):
    values = [*durations(seed, 3 * MAX_PENDING + 7), 0, 0]
    observed, sorted_in = Histogram(), Histogram()
    for number, ns in enumerate(values):
        observed.observe(ns)
        sorted_in.pending.append(ns)
        if len(sorted_in.pending) >= MAX_PENDING:
            sorted_in.sort_in()
        if number % 500 == 0:
            assert sorted_in.read() == observed.read()
    assert sorted_in.read() == observed.read() == sorted_in.read()


def test_an_empty_histogram_reads_as_nothing():
    assert Histogram().read() == HistogramState()


def test_zeros_have_no_bucket():
    histogram = Histogram()
    histogram.observe(0)
    histogram.observe(0)
    assert histogram.read() == HistogramState(count=2, zero_count=2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_at_most_five_percent_off(seed, q):
    values = sorted(durations(seed, 101))
    histogram = Histogram()
    for ns in values:
        histogram.observe(ns)
    assert histogram.read().quantile_s(q) == pytest.approx(values[int(q * 100)] / 1e9, rel=0.0443)


def test_quantiles_of_zeros_and_of_nothing():
    assert math.isnan(HistogramState().quantile_s(0.5))
    assert HistogramState(count=2, zero_count=2).quantile_s(0.5) == 0.0


@pytest.mark.parametrize("seed", SEEDS)
def test_exemplars_are_the_slowest_of_the_slowest_buckets(seed):
    chance = random.Random(seed)
    histogram = Histogram()
    slowest = {}
    for at, ns in enumerate(durations(seed, chance.randrange(1, 200))):
        histogram.observe(ns, origin=f"work {at}", at_unix_ns=at)
        position = bucket_position(ns)
        if position not in slowest or ns > slowest[position].value_ns:
            slowest[position] = ProbeExemplar(position, ns, at, f"work {at}")
    state = histogram.read()
    expected = [slowest[position] for position in sorted(slowest)[-EXEMPLARS_PER_HISTOGRAM:]]
    assert sorted(state.exemplars, key=lambda exemplar: exemplar.position) == expected
    assert histogram.read().exemplars == ()


def test_work_without_origin_leaves_no_exemplar():
    histogram = Histogram()
    histogram.observe(5)
    assert histogram.read().exemplars == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_merging_two_states_is_observing_all_values_in_one(seed):
    chance = random.Random(seed)
    one, other, both = Histogram(), Histogram(), Histogram()
    for ns in [*durations(seed, chance.randrange(4)), *([0] * chance.randrange(2))]:
        chance.choice([one, other]).observe(ns)
        both.observe(ns)
    assert merge_states(one.read(), other.read()) == both.read()
