"""What tasks wait for of each other: a lock, a queue.

A task that finds a lock taken says so in its step, and its next step is the end of its wait: where steps are
seen (`native_source/waits.h`), that is all there is to it. Elsewhere `FutureWaits` listens to the future that
the task is about to await.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from otel_concurrency.probes.account import LOCK, Account
from otel_concurrency.probes.histogram import Histogram, HistogramState, merge_states

KINDS = ("lock", "semaphore", "condition", "event", "queue_get", "queue_put", "barrier")
"""What is waited for; a kind is an index of it."""

LOCK_KINDS = (0, 1, 2)
"""Those that a request says how long it waited for."""

KIND_BITS = 4
MAX_NAMES = 50
OTHER = "_other"

_KIND = (1 << KIND_BITS) - 1
_EMPTY = contextvars.Context()


class WaitNames:
    """What locks and queues are called, as numbers; only so many, what is beyond goes by one name."""

    def __init__(self) -> None:
        self._names: list[str | None] = [None, OTHER]
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a name; 0 is that of whatever has none."""
        number = self._numbers.get(name)
        if number is None:
            if len(self._numbers) >= MAX_NAMES:
                return 1
            self._names.append(name)
            number = self._numbers[name] = len(self._names) - 1
        return number

    def name(self, number: int) -> str | None:
        """Return the name of a number."""
        return self._names[number]

    def known_as(self, name: str) -> str:
        """Return the name to count by: this one, or `OTHER`."""
        return self._names[self.number(name)] or OTHER


def row_of(kind: int, number: int = 0) -> int:
    """Return where the waits count that are for something of this kind, an index of `KINDS`, and name."""
    return number << KIND_BITS | kind


def split(row: int) -> tuple[int, int]:
    """Return the kind and the number of the name of a row."""
    return row & _KIND, row >> KIND_BITS


class WaitRow(NamedTuple):
    """All waits of one kind, for what has one name.

    Attributes:
        kind: One of `KINDS`.
        name: What `WaitNames` knows it by; None: unnamed.
        contentions: Waits so far.
        waiting: Those that last.
        wait_ns: How long the others were, all together.
        durations: How long each of them was.
    """

    kind: str
    name: str | None
    contentions: int
    waiting: int
    wait_ns: int
    durations: HistogramState


class FutureWaits:
    """Waits of tasks whose steps nobody sees: each lasts until the future is done.

    Args:
        monotonic_ns: The clock.
    """

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._now_ns = monotonic_ns
        self.reset()

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._lock = threading.Lock()
        # What dies, dies wherever a collection runs, so also while this thread holds the lock.
        self.died: deque[_Wait] = deque()
        self._rows: dict[int, _Row] = {}

    def follow(self, future: asyncio.Future[Any], row: int, account: Account | None = None) -> None:
        """Count a task that is about to await a future, for a request, too."""
        future.add_done_callback(self.begin(row, account), context=_EMPTY)

    def begin(self, row: int, account: Account | None) -> Callable[[object], None]:
        """Count a wait; returns what is to be called at its end, or let go of when nobody waits any more."""
        with self._lock:
            counts = self._rows.get(row)
            if counts is None:
                counts = self._rows[row] = _Row()
            counts.contentions += 1
            counts.waiting += 1
        is_lock = row & _KIND in LOCK_KINDS
        return _Wait(self, counts, self._now_ns(), account if is_lock else None)

    def over(self, wait: _Wait) -> None:
        """Count a wait that is over."""
        ns = self._now_ns() - wait.began_ns
        if wait.account is not None:
            wait.account.add_wait(LOCK, ns)
        with self._lock:
            wait.counts.waiting -= 1
            wait.counts.durations.observe(ns)

    def read(self, names: WaitNames) -> list[WaitRow]:
        """Return a row for each kind and name for which somebody has waited."""
        with self._lock:
            while self.died:
                self.died.popleft().counts.waiting -= 1
            states = [(row, counts, counts.durations.read()) for row, counts in self._rows.items()]
            return [
                wait_row(names, row, counts.contentions, counts.waiting, state.sum_ns, state)
                for row, counts, state in states
            ]


class _Row:
    """What a forked child's parent counts is in rows that the child does not have."""

    __slots__ = ("contentions", "durations", "waiting")

    def __init__(self) -> None:
        self.contentions = self.waiting = 0
        self.durations = Histogram()


class _Wait:
    """Called at the end of a wait, by a future that is done for instance."""

    __slots__ = ("_waits", "account", "began_ns", "counts")

    def __init__(self, waits: FutureWaits, counts: _Row, began_ns: int, account: Account | None) -> None:
        self._waits: FutureWaits | None = waits
        self.counts = counts
        self.began_ns = began_ns
        self.account = account

    def __call__(self, future: object) -> None:
        waits, self._waits = self._waits, None
        if waits is not None:
            waits.over(self)

    def __del__(self) -> None:
        if self._waits is not None:
            self._waits.died.append(self)


def wait_row(
    names: WaitNames, row: int, contentions: int, waiting: int, wait_ns: int, durations: HistogramState
) -> WaitRow:
    """Return what counts in a row, by `row_of`, under its names."""
    kind, number = split(row)
    return WaitRow(KINDS[kind], names.name(number), contentions, waiting, wait_ns, durations)


def merge_waits(rows: Iterable[WaitRow]) -> list[WaitRow]:
    """Return the rows, no kind and name twice."""
    merged: dict[tuple[str, str | None], WaitRow] = {}
    for row in rows:
        before = merged.get((row.kind, row.name))
        merged[row.kind, row.name] = row if before is None else _both(before, row)
    return list(merged.values())


def _both(one: WaitRow, other: WaitRow) -> WaitRow:
    return one._replace(
        contentions=one.contentions + other.contentions,
        waiting=one.waiting + other.waiting,
        wait_ns=one.wait_ns + other.wait_ns,
        durations=merge_states(one.durations, other.durations),
    )
