"""Distributions: quantiles of exponential and explicit histograms, alone and merged."""

from __future__ import annotations

import math
from typing import Any

import pytest

from otel_concurrency.console.distribution import Distribution
from otel_concurrency.probes.histogram import LOWEST_INDEX, SCALE, Histogram


def exponential(*values: float, scale: int = 3) -> dict[str, Any]:
    """Return the distribution of a data point that holds these values, zero, negative or positive."""
    indexes = {
        sign: [math.ceil(math.log2(abs(value)) * 2**scale) - 1 for value in values if value * sign > 0]
        for sign in (1, -1)
    }
    sides = {
        name: {
            "offset": min(indexes[sign], default=0),
            "counts": [
                indexes[sign].count(index)
                for index in range(min(indexes[sign], default=0), max(indexes[sign], default=-1) + 1)
            ],
        }
        for name, sign in (("positive", 1), ("negative", -1))
    }
    return {"scale": scale, "zero_count": values.count(0), "zero_threshold": 0.0, **sides}


def merged(*parts: dict[str, Any], low: float | None = None, high: float | None = None) -> Distribution:
    result = Distribution()
    for part in parts:
        if "scale" in part:
            counts = [part["zero_count"], *part["positive"]["counts"], *part["negative"]["counts"]]
        else:
            counts = part["counts"]
        result.add(sum(counts), None, low, high, part)
    return result


@pytest.mark.parametrize(("scale", "step"), [(-1, 1.37), (0, 1.37), (3, 1.37), (8, 1.01), (20, 1.000_01)])
@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_an_exponential_quantile_is_within_its_bucket(scale: int, step: float, q: float) -> None:
    """Half a bucket off at most, in the ratio that the scale promises."""
    values = [0.001 * step**n for n in range(40)]
    exact = values[int(q * (len(values) - 1))]
    estimate = merged(exponential(*values, scale=scale)).quantile(q)
    ratio = 2 ** (0.5 * 2.0**-scale) * (1 + 1e-12)
    assert exact / ratio <= estimate <= exact * ratio


def test_it_says_what_the_probe_says() -> None:
    """The probe's own histogram and this one put the same values at the same place."""
    probe = Histogram()
    for ns in (1_000, 5_000_000, 6_000_000, 300_000_000):
        probe.observe(ns)
    state = probe.read()
    received = {
        "scale": SCALE,
        "zero_count": state.zero_count,
        "zero_threshold": 0.0,
        "positive": {"offset": LOWEST_INDEX + state.first_position, "counts": list(state.bucket_counts)},
        "negative": {"offset": 0, "counts": []},
    }
    distribution = merged(received, low=state.min_ns * 1e-9, high=state.max_ns * 1e-9)
    quantiles = [0.0, 0.3, 0.5, 0.9, 1.0]
    expected = [pytest.approx(state.quantile_s(q), rel=1e-9) for q in quantiles]
    assert [distribution.quantile(q) for q in quantiles] == expected


def test_histograms_of_two_processes_are_one() -> None:
    both = merged(exponential(1.0, 1.0, 1.0), exponential(100.0))
    assert both.count == 4
    assert both.quantile(0.5) == pytest.approx(1.0, rel=0.045)
    assert both.quantile(1.0) == pytest.approx(100.0, rel=0.045)


def test_histograms_of_two_scales_are_merged() -> None:
    """An SDK's histogram loses scale when its values spread; each bucket still holds what it holds."""
    both = merged(exponential(1.0, 1.1, 1.2, scale=5), exponential(50.0, 60.0, scale=1))
    assert both.quantile(0.5) == pytest.approx(1.2, rel=0.03)
    assert both.quantile(1.0) == pytest.approx(60.0, rel=0.2)


def test_zeros_and_negatives_come_first() -> None:
    distribution = merged(exponential(-4.0, 0, 0, 2.0))
    assert [distribution.quantile(q) for q in (0.0, 0.4, 1.0)] == [
        pytest.approx(-4.0, rel=0.045),
        0.0,
        pytest.approx(2.0, rel=0.045),
    ]


def test_explicit_buckets_with_extremes() -> None:
    part = {"bounds": [0.1, 1.0], "counts": [1, 2, 1]}
    distribution = merged(part, low=0.05, high=3.0)
    expected = [math.sqrt(0.05 * 0.1), math.sqrt(0.1 * 1.0), math.sqrt(1.0 * 3.0)]
    assert [distribution.quantile(q) for q in (0.0, 0.5, 1.0)] == [pytest.approx(value) for value in expected]


def test_explicit_buckets_without_extremes_end_at_their_bounds() -> None:
    distribution = merged({"bounds": [0.1, 1.0], "counts": [1, 0, 1]})
    assert [distribution.quantile(q) for q in (0.0, 1.0)] == [0.1, 1.0]


def test_extremes_of_one_sender_do_not_bound_another() -> None:
    distribution = Distribution()
    distribution.add(1, 0.2, 0.2, 0.2, {"bounds": [0.1, 1.0], "counts": [0, 1, 0]})
    distribution.add(1, None, None, None, {"bounds": [0.1, 1.0], "counts": [0, 0, 1]})
    assert distribution.quantile(1.0) == 1.0


def test_one_value_is_known_exactly() -> None:
    assert merged(exponential(0.3), low=0.3, high=0.3).quantile(0.99) == 0.3


def test_nothing_observed_is_no_number() -> None:
    assert math.isnan(Distribution().quantile(0.5))
    assert math.isnan(merged(exponential()).quantile(0.5))


def test_bounds_beyond_the_doubles_are_infinite() -> None:
    """Whoever sends such an offset gets a poor quantile, not an error for everybody."""
    far = {
        "scale": -10,
        "zero_count": 0,
        "zero_threshold": 0.0,
        "positive": {"offset": 2**31 - 2, "counts": [1]},
        "negative": {"offset": -(2**31), "counts": [1]},
    }
    assert merged(far).quantile(1.0) == math.inf
