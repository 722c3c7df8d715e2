"""How much of a table is kept: which of its rows go when others come, or when they are old."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

LOTS = 256
"""A lot is at most this part of what is kept; the smaller, the closer to the limits a table stays."""

LOT_NS = 1_000_000_000
"""Rows that came within a second may be one lot, and go together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What each table keeps.

    Attributes:
        rows: Rows.
        size_bytes: Bytes of requests, as OTLP: a bound for rows that are few but huge.
        age_ns: Since they came, ns; none for as long as there is room.
    """

    rows: int
    size_bytes: int
    age_ns: int | None = None


@dataclass(slots=True)
class Lot:
    """Rows that came together.

    Attributes:
        after: The id after its last row's.
        size_bytes: What they weighed.
        arrived_ns: When its first came, ns since the epoch.
    """

    after: int
    size_bytes: int
    arrived_ns: int


@dataclass(slots=True)
class Shelf:
    """One table's ids in use, `first` up to but not including `next`, and what became of its rows.

    `stored` and what follows it is what is told; the others are ahead of it while a transaction runs.
    """

    first: int = 0
    next: int = 0
    size_bytes: int = 0
    stored: int = 0
    received: int = 0
    evicted: int = 0
    expired: int = 0
    rejected: int = 0
    lots: deque[Lot] = field(default_factory=deque)

    def hold(self, first: int, after: int, lots: Iterable[tuple[int, int, int]]) -> None:
        """Take over what a table holds: its ids, its lots as `(after, bytes, arrived_ns)`, oldest first."""
        self.first, self.next, self.stored = first, after, after - first
        self.lots = deque(Lot(*lot) for lot in lots)
        self.size_bytes = sum(lot.size_bytes for lot in self.lots)

    def add(self, rows: int, size_bytes: int, now_ns: int, limits: Limits) -> None:
        """Note rows that are about to be stored."""
        last = self.lots[-1] if self.lots else None
        begins = last.after - rows if last is not None else 0
        self.next += rows
        self.size_bytes += size_bytes
        if (
            last is not None
            and now_ns - last.arrived_ns < LOT_NS
            and last.size_bytes + size_bytes <= limits.size_bytes // LOTS
            and self.next - begins <= limits.rows // LOTS
        ):
            last.after = self.next
            last.size_bytes += size_bytes
        else:
            self.lots.append(Lot(self.next, size_bytes, now_ns))

    def keep_from(self, now_ns: int, limits: Limits) -> tuple[int, int]:
        """Return the first id to keep, and the first that is young enough."""
        young = self.first
        room = self.first
        size_bytes = self.size_bytes
        for lot in self.lots:
            is_old = limits.age_ns is not None and lot.arrived_ns < now_ns - limits.age_ns
            if not is_old and size_bytes <= limits.size_bytes:
                break
            if is_old:
                young = max(young, lot.after)
            room = max(room, lot.after)
            size_bytes -= lot.size_bytes
        if self.next - room > limits.rows:
            room = self.next - limits.rows + limits.rows // LOTS  # some at once: each time costs
        return room, young

    def drop(self, first: int, young: int) -> None:
        """Note that the rows before `first` are gone, those before `young` because of their age."""
        self.expired += young - self.first
        self.evicted += max(0, first - max(young, self.first))
        self.first = max(first, self.first)
        while self.lots and self.lots[0].after <= self.first:
            self.size_bytes -= self.lots.popleft().size_bytes
