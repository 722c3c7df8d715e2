"""Distributions: what histograms of any kind, from any number of processes, say together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(slots=True)
class Distribution:
    """Merged histograms.

    Attributes:
        count: Values observed.
        sum: Their sum.
        minimum: The smallest, where the senders tell; else minus infinity.
        maximum: The largest, where the senders tell; else infinity.
        buckets: Values by bucket, a lower and an inclusive upper bound.
    """

    count: int = 0
    sum: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    buckets: Counter[tuple[float, float]] = field(default_factory=Counter)

    def add(
        self,
        count: int,
        total: float | None,
        minimum: float | None,
        maximum: float | None,
        distribution: Mapping[str, Any],
    ) -> None:
        """Add the numbers of one data point, as its row holds them."""
        if not count:
            return
        self.count += count
        self.sum += total or 0.0
        self.minimum = min(self.minimum, -math.inf if minimum is None else minimum)
        self.maximum = max(self.maximum, math.inf if maximum is None else maximum)
        is_exponential = "scale" in distribution
        for bounds, held in _exponential(distribution) if is_exponential else _explicit(distribution):
            if held:
                self.buckets[bounds] += held

    def merge(self, other: Distribution) -> None:
        """Add all that another one holds."""
        if other.count:
            self.count += other.count
            self.sum += other.sum
            self.minimum = min(self.minimum, other.minimum)
            self.maximum = max(self.maximum, other.maximum)
            self.buckets.update(other.buckets)

    def quantile(self, q: float) -> float:
        """Estimate a quantile: the middle of its bucket, within the observed extremes.

        Args:
            q: 0.0 to 1.0.

        Returns:
            The middle is geometric where the bounds are positive: with an exponential histogram of scale 3 at
            most 4.4 % off. `nan` when nothing was observed or there are no buckets.
        """
        rank = q * (sum(self.buckets.values()) - 1)
        seen = 0
        for (low, high), held in sorted(self.buckets.items(), key=lambda bucket: bucket[0][1]):
            seen += held
            if rank < seen:
                return self._middle(low, high)
        return math.nan

    def _middle(self, low: float, high: float) -> float:
        low = self.minimum if math.isinf(low) else low
        high = self.maximum if math.isinf(high) else high
        if math.isinf(low) or math.isinf(high):  # an outer bucket, and the sender told no extremes
            return high if math.isinf(low) else low
        middle = math.sqrt(low) * math.sqrt(high) if low > 0 else (low + high) / 2
        return min(max(middle, self.minimum), self.maximum)


def _explicit(distribution: Mapping[str, Any]) -> Iterable[tuple[tuple[float, float], int]]:
    bounds = [-math.inf, *map(float, distribution["bounds"]), math.inf]
    return zip(pairwise(bounds), distribution["counts"], strict=False)


def _exponential(distribution: Mapping[str, Any]) -> Iterable[tuple[tuple[float, float], int]]:
    scale = distribution["scale"]
    zero = float(distribution["zero_threshold"])
    yield (-zero, zero), distribution["zero_count"]
    for sign, side in ((1, distribution["positive"]), (-1, distribution["negative"])):
        for index, held in enumerate(side["counts"], side["offset"]):
            near, far = sign * _bound(index, scale), sign * _bound(index + 1, scale)
            yield (min(near, far), max(near, far)), held


def _bound(index: int, scale: int) -> float:
    """Return the bound below bucket `index`, `2 ** (index / 2 ** scale)`; infinity beyond the doubles."""
    try:
        if scale <= 0:
            return math.ldexp(1.0, index << -scale)
        octave, step = divmod(index, 1 << scale)
        return math.ldexp(2.0 ** (step / (1 << scale)), octave)
    except OverflowError:
        return math.inf
