"""What limiters recommend, how many calls they let through, and how many wait, as metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from otel_concurrency.signals import names
from otel_concurrency.signals.readings import GaugeReading, Labels, Reading, SumReading

MAX_NAMES = 32
OTHER = "_other"


class Limiter(Protocol):
    """What we read of one."""

    name: str
    rejected: int

    @property
    def limit(self) -> int:
        """How many calls may be under way."""
        ...

    @property
    def in_use(self) -> int:
        """How many are."""
        ...

    @property
    def waiting(self) -> int:
        """How many wait."""
        ...


class LimitMetrics:
    """A source with the limits of all limiters.

    Args:
        limiters: Returns those that there are.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(
        self, limiters: Callable[[], Iterable[Limiter]], *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._limiters = limiters
        self.start_unix_ns = clock()

    def collect(self) -> list[Reading]:
        """Look at them once."""
        totals: dict[str, list[int]] = {}
        for limiter in self._limiters():
            name = limiter.name if limiter.name in totals or len(totals) < MAX_NAMES else OTHER
            sums = totals.setdefault(name, [0, 0, 0, 0])
            numbers = (limiter.limit, limiter.in_use, limiter.waiting, limiter.rejected)
            totals[name] = [one + other for one, other in zip(sums, numbers, strict=True)]
        seen: list[tuple[Labels, list[int]]] = [
            ({names.LIMITER_NAME: name}, sums) for name, sums in totals.items()
        ]
        return [
            GaugeReading(names.LIMIT_RECOMMENDED, [(labels, sums[0]) for labels, sums in seen]),
            SumReading(names.LIMIT_IN_USE, [(labels, sums[1]) for labels, sums in seen]),
            SumReading(names.LIMIT_WAITING, [(labels, sums[2]) for labels, sums in seen]),
            SumReading(names.LIMIT_REJECTED, [(labels, sums[3]) for labels, sums in seen]),
        ]
