"""Base-2 exponential histograms of nanoseconds, in integers only.

The native probe and this module share one bucket table, so both put every value into the same bucket. The
table is OpenTelemetry's exponential histogram at a fixed scale: bucket `i` holds values in `(base**i,
base**(i+1)]` seconds with `base = 2 ** (2 ** -SCALE)` (specification, metrics data model, "Exponential
Histogram").
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

SCALE = 3
"""Eight buckets an octave: a quantile is at most 4.5 % off, half of `2 ** (1 / 8) - 1`."""

BUCKETS_PER_OCTAVE = 1 << SCALE
LOWEST_EXPONENT = -30
"""The lowest bound is 2**-30 s = 0.93 ns, so only a reading of exactly 0 ns counts as zero."""

HIGHEST_EXPONENT = 16
"""The highest bound is 2**16 s = 18.2 h; what lasts longer counts in the last bucket."""

BUCKET_COUNT = (HIGHEST_EXPONENT - LOWEST_EXPONENT) * BUCKETS_PER_OCTAVE
LOWEST_INDEX = LOWEST_EXPONENT * BUCKETS_PER_OCTAVE
EXEMPLARS_PER_HISTOGRAM = 4
"""Between two readings, the slowest value of each of the slowest this many buckets."""

MAX_PENDING = 256
"""Values that wait to be sorted in, all at once: one by one they take several times as long."""

# 2 ** (k / 8), written out so that C and Python start from the same doubles.
_MANTISSAS = (
    1.0,
    1.0905077326652577,
    1.189207115002721,
    1.2968395546510096,
    1.4142135623730951,
    1.5422108254079407,
    1.681792830507429,
    1.8340080864093424,
)


def upper_bound_s(position: int) -> float:
    """Return the inclusive upper bound, in seconds, of the bucket at a position of the table.

    Args:
        position: 0 to `BUCKET_COUNT - 1`; the OpenTelemetry index is `LOWEST_INDEX + position`.
    """
    octave, step = divmod(LOWEST_INDEX + position + 1, BUCKETS_PER_OCTAVE)
    return math.ldexp(_MANTISSAS[step], octave)


# A reading is a whole number of ns, so `ns * 1e-9 <= bound` and `ns <= floor(bound * 1e9)` say the same.
UPPER_BOUNDS_NS = tuple(math.floor(upper_bound_s(position) * 1e9) for position in range(BUCKET_COUNT - 1))


def bucket_position(ns: int) -> int:
    """Return the table position of a duration of at least 1 ns; the last for what is beyond the table."""
    return bisect_left(UPPER_BOUNDS_NS, ns)


@dataclass(frozen=True, slots=True)
class ProbeExemplar:
    """The slowest value of one bucket since the last reading, with what was current where the work was
    created.

    Attributes:
        position: The bucket's position in the table.
        value_ns: The value, ns.
        at_unix_ns: Wall-clock time of the observation, ns since the epoch.
        origin: The value that the probe's origin variable had; opaque here, an OpenTelemetry context to
            `signals/`.
    """

    position: int
    value_ns: int
    at_unix_ns: int
    origin: object


@dataclass(frozen=True, slots=True)
class HistogramState:
    """A frozen reading of a histogram; counts only grow from one reading to the next.

    Attributes:
        count: Values observed, zeros included.
        sum_ns: Their sum, ns.
        min_ns: The smallest value ever, ns; 0 when empty.
        max_ns: The largest value ever, ns; 0 when empty.
        zero_count: Values of exactly 0 ns.
        first_position: Table position of `bucket_counts[0]`.
        bucket_counts: Values per bucket, from the first to the last bucket in use; empty when none is.
        exemplars: Drained: each was in no earlier reading.
    """

    count: int = 0
    sum_ns: int = 0
    min_ns: int = 0
    max_ns: int = 0
    zero_count: int = 0
    first_position: int = 0
    bucket_counts: tuple[int, ...] = ()
    exemplars: tuple[ProbeExemplar, ...] = ()

    def quantile_s(self, q: float) -> float:
        """Estimate a quantile, in seconds: the geometric middle of its bucket, within the observed extremes.

        Args:
            q: 0.0 to 1.0.

        Returns:
            Seconds, at most 4.5 % off; `nan` when nothing was observed.
        """
        if not self.count:
            return math.nan
        rank = q * (self.count - 1)
        seen = self.zero_count
        if rank < seen:
            return 0.0
        for offset, bucket_count in enumerate(self.bucket_counts):
            seen += bucket_count
            if rank < seen:
                upper = upper_bound_s(self.first_position + offset)
                middle = upper / math.sqrt(_MANTISSAS[1])
                return min(max(middle, self.min_ns * 1e-9), self.max_ns * 1e-9)
        return self.max_ns * 1e-9


class Histogram:
    """The pure twin of the native histogram; one writer at a time, guarded by its owner's lock.

    Attributes:
        pending: Values that are not sorted in yet, always this very list. Who is in a hurry appends here
            what has no origin, without the lock, and calls `sort_in`, with it, when there are `MAX_PENDING`.
    """

    __slots__ = ("_buckets", "_exemplars", "_max_ns", "_min_ns", "_sum_ns", "_zero_count", "pending")

    def __init__(self) -> None:
        self.pending: list[int] = []
        self._buckets = [0] * BUCKET_COUNT
        self._exemplars: dict[int, ProbeExemplar] = {}
        self._zero_count = 0
        self._sum_ns = 0
        self._min_ns = sys.maxsize
        self._max_ns = 0

    def observe(self, ns: int, origin: object = None, at_unix_ns: int = 0) -> None:
        """Count one value; with an origin, keep it as exemplar if it is the slowest of a slow bucket."""
        if ns < self._min_ns:
            self._min_ns = ns
        if ns > self._max_ns:
            self._max_ns = ns
        if ns <= 0:
            self._zero_count += 1
            return
        self._sum_ns += ns
        position = bisect_left(UPPER_BOUNDS_NS, ns)  # `bucket_position`, without its call
        self._buckets[position] += 1
        if origin is not None:
            self._keep_exemplar(position, ns, origin, at_unix_ns)

    def sort_in(self) -> None:
        """Sort in the values that wait."""
        pending = self.pending[:]
        if not pending:
            return
        del self.pending[: len(pending)]  # another thread may have appended since
        # In order, those of one bucket stand together, and are counted at once.
        pending.sort()
        self._min_ns = min(self._min_ns, pending[0])
        self._max_ns = max(self._max_ns, pending[-1])
        buckets = self._buckets
        at, end = bisect_right(pending, 0), len(pending)
        self._zero_count += at
        self._sum_ns += sum(pending[at:])
        while at < end:
            position = bisect_left(UPPER_BOUNDS_NS, pending[at])  # `bucket_position`, without its call
            bound = UPPER_BOUNDS_NS[position] if position < BUCKET_COUNT - 1 else pending[-1]
            after = bisect_right(pending, bound, at)
            buckets[position] += after - at
            at = after

    def _keep_exemplar(self, position: int, ns: int, origin: object, at_unix_ns: int) -> None:
        held = self._exemplars.get(position)
        if held is not None and ns <= held.value_ns:
            return
        if held is None and len(self._exemplars) == EXEMPLARS_PER_HISTOGRAM:
            fastest = min(self._exemplars)
            if position < fastest:
                return
            del self._exemplars[fastest]
        self._exemplars[position] = ProbeExemplar(position, ns, at_unix_ns, origin)

    def read(self) -> HistogramState:
        """Return the state, and drain the exemplars into it."""
        exemplars, self._exemplars = self._exemplars, {}
        return replace(self.peek(), exemplars=tuple(exemplars.values()))

    def peek(self) -> HistogramState:
        """Return the state without exemplars, which stay for whoever reads."""
        self.sort_in()
        buckets = self._buckets
        count = sum(buckets) + self._zero_count
        first = next(_used(buckets), 0)
        last = next((BUCKET_COUNT - 1 - back for back in _used(buckets[::-1])), -1)
        return HistogramState(
            count,
            self._sum_ns,
            max(self._min_ns, 0) if count else 0,
            self._max_ns,
            self._zero_count,
            first,
            tuple(buckets[first : last + 1]),
        )


def _used(buckets: list[int]) -> Iterator[int]:
    return (position for position, count in enumerate(buckets) if count)


def merge_states(one: HistogramState, other: HistogramState) -> HistogramState:
    """Return the state of all values of both."""
    if not one.count or not other.count:
        return other if not one.count else one
    used = [state for state in (one, other) if state.bucket_counts]
    first = min((state.first_position for state in used), default=0)
    end = max((state.first_position + len(state.bucket_counts) for state in used), default=0)
    counts = [0] * (end - first)
    for state in used:
        for position, count in enumerate(state.bucket_counts, state.first_position):
            counts[position - first] += count
    return HistogramState(
        one.count + other.count,
        one.sum_ns + other.sum_ns,
        min(one.min_ns, other.min_ns),
        max(one.max_ns, other.max_ns),
        one.zero_count + other.zero_count,
        first,
        tuple(counts),
        one.exemplars + other.exemplars,
    )


def state_since(before: HistogramState, now: HistogramState) -> HistogramState:
    """Return the state of what came between two readings of one histogram; its extremes are estimates.

    They are the bounds of their buckets, but for a largest value that is larger than before: that is exact.
    """
    if now.count < before.count:  # it began anew
        return now
    counts = list(now.bucket_counts)
    for position, count in enumerate(before.bucket_counts, before.first_position - now.first_position):
        counts[position] -= count
    used = [offset for offset, count in enumerate(counts) if count]
    zeros = now.zero_count - before.zero_count
    if not used:
        return HistogramState(count=zeros, zero_count=zeros)
    first, last = used[0], used[-1]
    low, high = now.first_position + first, now.first_position + last
    bound_ns = round(upper_bound_s(high) * 1e9)
    return HistogramState(
        count=now.count - before.count,
        sum_ns=now.sum_ns - before.sum_ns,
        min_ns=0 if zeros else round(upper_bound_s(low - 1) * 1e9),
        max_ns=now.max_ns if now.max_ns > before.max_ns else min(bound_ns, now.max_ns),
        zero_count=zeros,
        first_position=low,
        bucket_counts=tuple(counts[first : last + 1]),
    )
