"""The buckets of a histogram as Prometheus' text formats want them: how many are at most this, and this.

An exponential histogram has no place in these formats. Its buckets are joined to powers of two, or coarser
ones if it has them: each bound is then one of its own, so no count is moved, and the bounds stay the same
while its scale changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from opentelemetry.sdk.metrics._internal.point import Buckets, ExponentialHistogramDataPoint
from opentelemetry.sdk.metrics.export import HistogramDataPoint

Bucket = tuple[float, int]
"""An upper bound, and how many values are not above it."""


def explicit_buckets(point: HistogramDataPoint) -> list[Bucket]:
    """Return the buckets of a histogram with explicit bounds; the last one has them all."""
    bounds = [*map(float, point.explicit_bounds), math.inf]
    return list(zip(bounds, accumulate(point.bucket_counts), strict=False))


def exponential_buckets(point: ExponentialHistogramDataPoint) -> list[Bucket]:
    """Return the buckets of an exponential histogram; the last one has all values."""
    shift = max(0, point.scale)
    step = 2.0 ** max(0, -point.scale)
    below: dict[float, int] = {}
    for index, count in _joined(point.negative, shift):
        # From -base^(index + 1) to -base^index: the bound above it is the one nearer to zero.
        bound = -_power(index * step)
        below[bound] = below.get(bound, 0) + count
    if point.zero_count or below:
        below[0.0] = below.get(0.0, 0) + point.zero_count
    for index, count in _joined(point.positive, shift):
        bound = _power((index + 1) * step)
        below[bound] = below.get(bound, 0) + count
    bounds = sorted(bound for bound in below if not math.isinf(bound))
    told = list(zip(bounds, accumulate(below[bound] for bound in bounds), strict=True))
    return [*told, (math.inf, point.count)]


def _joined(buckets: Buckets, shift: int) -> Iterator[tuple[int, int]]:
    """Yield the index and count of each bucket at the coarser scale; a bucket may come in parts."""
    for position, count in enumerate(buckets.bucket_counts, buckets.offset):
        if count:
            yield position >> shift, count


def _power(exponent: float) -> float:
    try:
        return float(2.0**exponent)
    except OverflowError:
        return math.inf
