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
from collections.abc import Callable
from typing import Any, NamedTuple

from otel_concurrency.probes.account import LOCK, Account
from otel_concurrency.probes.histogram import Histogram, HistogramState, merge_states

KINDS = ("lock", "semaphore", "condition", "event", "queue_get", "queue_put")
"""What is waited for; a kind is an index of it. Those that wait at a barrier wait for its condition."""

LOCK_KINDS = (0, 1, 2)
"""Those that a request says how long it waited for."""

_EMPTY = contextvars.Context()


class WaitRow(NamedTuple):
    """All waits of one kind.

    Attributes:
        kind: One of `KINDS`.
        contentions: Waits so far.
        waiting: Those that last.
        wait_ns: How long the others were, all together.
        durations: How long each of them was.
    """

    kind: str
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
        self._contentions = [0] * len(KINDS)
        self._waiting = [0] * len(KINDS)
        self._durations = [Histogram() for _ in KINDS]
        self.round = object()

    def follow(self, future: asyncio.Future[Any], kind: int, account: Account | None = None) -> None:
        """Count a task that is about to await a future, for a request, too."""
        with self._lock:
            self._contentions[kind] += 1
            self._waiting[kind] += 1
        future.add_done_callback(_Wait(self, kind, self._now_ns(), account), context=_EMPTY)

    def over(self, wait: _Wait) -> None:
        """Count a wait that is over."""
        ns = self._now_ns() - wait.began_ns
        if wait.account is not None and wait.kind in LOCK_KINDS:
            wait.account.add_wait(LOCK, ns)
        if wait.round is self.round:  # else the parent process counts it
            with self._lock:
                self._waiting[wait.kind] -= 1
                self._durations[wait.kind].observe(ns)

    def read(self) -> list[WaitRow]:
        """Return a row for each kind."""
        with self._lock:
            while self.died:
                wait = self.died.popleft()
                self._waiting[wait.kind] -= wait.round is self.round
            states = [histogram.read() for histogram in self._durations]
            return [
                WaitRow(name, self._contentions[kind], self._waiting[kind], states[kind].sum_ns, states[kind])
                for kind, name in enumerate(KINDS)
            ]


class _Wait:
    """A future's done-callback: called at the end of a wait, or let go of when nobody waits any more."""

    __slots__ = ("_waits", "account", "began_ns", "kind", "round")

    def __init__(self, waits: FutureWaits, kind: int, began_ns: int, account: Account | None) -> None:
        self._waits: FutureWaits | None = waits
        self.kind = kind
        self.began_ns = began_ns
        self.account = account
        self.round = waits.round

    def __call__(self, future: object) -> None:
        waits, self._waits = self._waits, None
        if waits is not None:
            waits.over(self)

    def __del__(self) -> None:
        if self._waits is not None:
            self._waits.died.append(self)


def merge_waits(one: list[WaitRow], other: list[WaitRow]) -> list[WaitRow]:
    """Return the rows of both together."""
    return [
        WaitRow(
            a.kind,
            a.contentions + b.contentions,
            a.waiting + b.waiting,
            a.wait_ns + b.wait_ns,
            merge_states(a.durations, b.durations),
        )
        for a, b in zip(one, other, strict=True)
    ]
