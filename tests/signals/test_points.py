"""Explicit bounds: where each value goes, and that none moves on the way."""

from __future__ import annotations

import random
from bisect import bisect_left

import pytest

from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.signals.points import EXPLICIT_BOUNDS_S, difference, explicit_point


def test_the_bounds_are_powers_of_two_from_a_microsecond_to_an_hour():
    assert [bound.hex().partition("p")[0] for bound in EXPLICIT_BOUNDS_S] == ["0x1.0000000000000"] * 20
    assert list(EXPLICIT_BOUNDS_S) == sorted(set(EXPLICIT_BOUNDS_S))
    assert (EXPLICIT_BOUNDS_S[0], EXPLICIT_BOUNDS_S[-1]) == (2**-20, 4096)


@pytest.mark.parametrize("seed", range(20))
def test_folding_into_explicit_bounds_moves_no_value(seed):
    """The same counts as from the values themselves; values on and beside each bound included."""
    chance = random.Random(seed)
    on_bounds = [int(bound * 10**9) for bound in EXPLICIT_BOUNDS_S]
    values = [0, 1, 2**63 - 1, *on_bounds, *(ns + 1 for ns in on_bounds)]
    values += [int(chance.lognormvariate(14, 6)) for _ in range(500)]
    histogram = Histogram()
    expected = [0] * (len(EXPLICIT_BOUNDS_S) + 1)
    for ns in values:
        histogram.observe(ns)
        expected[bisect_left(EXPLICIT_BOUNDS_S, ns / 1e9)] += 1
    point = explicit_point({}, 0, 1, histogram.read(), ())
    assert point.bucket_counts == expected
    assert (point.count, point.min, point.max) == (len(values), 0.0, (2**63 - 1) / 1e9)


@pytest.mark.parametrize("seed", range(20))
def test_a_difference_is_what_was_observed_between_two_readings(seed):
    chance = random.Random(seed)
    whole, later = Histogram(), Histogram()
    for _ in range(chance.randrange(5)):
        whole.observe(int(chance.lognormvariate(10, 4)))
    before = whole.read()
    for _ in range(chance.randrange(5)):
        ns = chance.choice([0, int(chance.lognormvariate(10, 4))])
        whole.observe(ns)
        later.observe(ns)
    found, expected = difference(whole.read(), before), later.read()
    assert (found.count, found.sum_ns, found.zero_count, found.first_position, found.bucket_counts) == (
        expected.count,
        expected.sum_ns,
        expected.zero_count,
        expected.first_position,
        expected.bucket_counts,
    )
    assert found.min_ns in (expected.min_ns, -1)
    assert found.max_ns in (expected.max_ns, -1)
