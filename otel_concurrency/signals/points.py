"""Data points out of readings: the one place where nanoseconds become seconds.

The SDK's point classes are public (`opentelemetry.sdk.metrics.export`), but for the exponential histogram's,
which `opentelemetry.sdk.metrics._internal.point` holds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import sub
from typing import cast

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics._internal.point import Buckets, ExponentialHistogramDataPoint
from opentelemetry.sdk.metrics.export import HistogramDataPoint

from otel_concurrency.probes.histogram import BUCKET_COUNT, LOWEST_INDEX, SCALE, HistogramState, upper_bound_s
from otel_concurrency.signals.readings import Labels

_EXPLICIT_EXPONENTS = (-20, -17, -14, -12, *range(-10, 1), 2, 4, 6, 9, 12)
EXPLICIT_BOUNDS_S = tuple(2.0**exponent for exponent in _EXPLICIT_EXPONENTS)
"""Explicit bucket bounds, 0.95 µs to 68 min: every octave from 1 ms to 1 s, where requests live. Powers of
two only: each is a bound of the probes' own buckets, so no value moves when they are folded together."""

_EXPLICIT_SLOTS = tuple(
    bisect_left(EXPLICIT_BOUNDS_S, upper_bound_s(position)) for position in range(BUCKET_COUNT)
)
_NOTHING = HistogramState()
_NO_BUCKETS = Buckets(offset=0, bucket_counts=())


def seconds(ns: int | float) -> float:
    """Return nanoseconds in seconds, rounded once."""
    return ns / 1e9


def began_anew(now: HistogramState, before: HistogramState) -> bool:
    """Tell whether a histogram was emptied between two readings of it."""
    return now.count < before.count or now.sum_ns < before.sum_ns or now.zero_count < before.zero_count


def difference(now: HistogramState, before: HistogramState) -> HistogramState:
    """Return what was observed between two readings of one histogram; all of `now` if it began anew.

    The extremes are known only where a new one was set; elsewhere they are -1, and points leave them out.
    """
    if not before.count or began_anew(now, before):
        return now
    if now.count == before.count:
        return _NOTHING
    counts = list(now.bucket_counts)
    if before.bucket_counts:
        shift = before.first_position - now.first_position
        shared = slice(shift, shift + len(before.bucket_counts))
        if shift < 0 or shared.stop > len(counts):
            return now
        counts[shared] = map(sub, counts[shared], before.bucket_counts)
    first = next((offset for offset, count in enumerate(counts) if count), len(counts))
    while len(counts) > first and not counts[-1]:
        counts.pop()
    counts = counts[first:]
    if counts and min(counts) < 0:
        return now
    return HistogramState(
        count=now.count - before.count,
        sum_ns=now.sum_ns - before.sum_ns,
        min_ns=now.min_ns if now.min_ns < before.min_ns else -1,
        max_ns=now.max_ns if now.max_ns > before.max_ns else -1,
        zero_count=now.zero_count - before.zero_count,
        first_position=now.first_position + first if counts else 0,
        bucket_counts=tuple(counts),
    )


def exponential_point(
    attributes: Labels,
    start_unix_ns: int,
    at_unix_ns: int,
    state: HistogramState,
    exemplars: Sequence[Exemplar],
) -> ExponentialHistogramDataPoint:
    """Return a state as OpenTelemetry's exponential histogram; the buckets are its own already."""
    return ExponentialHistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=start_unix_ns,
        time_unix_nano=at_unix_ns,
        count=state.count,
        sum=state.sum_ns / 1e9,
        scale=SCALE,
        zero_count=state.zero_count,
        positive=Buckets(LOWEST_INDEX + state.first_position, state.bucket_counts),
        negative=_NO_BUCKETS,
        flags=0,
        min=_extreme(state.min_ns),
        max=_extreme(state.max_ns),
        exemplars=exemplars,
    )


def explicit_point(
    attributes: Labels,
    start_unix_ns: int,
    at_unix_ns: int,
    state: HistogramState,
    exemplars: Sequence[Exemplar],
) -> HistogramDataPoint:
    """Return a state as a histogram with `EXPLICIT_BOUNDS_S`, for readers that know no exponential ones."""
    counts = [0] * (len(EXPLICIT_BOUNDS_S) + 1)
    counts[0] = state.zero_count
    for position, count in enumerate(state.bucket_counts, state.first_position):
        counts[_EXPLICIT_SLOTS[position]] += count
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=start_unix_ns,
        time_unix_nano=at_unix_ns,
        count=state.count,
        sum=state.sum_ns / 1e9,
        bucket_counts=counts,
        explicit_bounds=EXPLICIT_BOUNDS_S,
        min=_extreme(state.min_ns),
        max=_extreme(state.max_ns),
        exemplars=exemplars,
    )


def _extreme(ns: int) -> float:
    # On the wire an extreme may be unset, and the encoders make that of None; only the annotation lacks it.
    return cast(float, ns / 1e9 if ns >= 0 else None)
