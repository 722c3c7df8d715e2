"""Runs of Celery's tasks, counted by the task's name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from otel_concurrency.probes.histogram import MAX_PENDING, Histogram, HistogramState
from otel_concurrency.probes.tasks import OTHER

MAX_NAMES = 50
MAX_QUEUES = 16


@dataclass(frozen=True, slots=True)
class CeleryRow:
    """All runs of the tasks of one name, frozen; every number only grows.

    Attributes:
        name: The task's name, or `_other`.
        completed: Runs that ended, by outcome and exception type, or "".
        duplicates: Runs of what had been run to its end before.
        redelivered: Runs of messages that had been delivered before.
        retries: Further tries that were asked for.
        queue_times: From being sent to the run, by the queue's name.
        prefetch_times: From coming in to the run.
        run_times: From begin to end, by outcome.
    """

    name: str
    completed: Mapping[tuple[str, str], int]
    duplicates: int
    redelivered: int
    retries: int
    queue_times: Mapping[str, HistogramState]
    prefetch_times: HistogramState
    run_times: Mapping[str, HistogramState]


class CeleryProbe:
    """Keeps the numbers; everything here may be called from any thread.

    Args:
        max_error_types: Exception types told apart; further ones count as `_other`.
    """

    def __init__(self, *, max_error_types: int = 50) -> None:
        self._max_error_types = max_error_types
        self.reset()

    def __repr__(self) -> str:
        return f"<CeleryProbe [{len(self._counts)} names]>"

    def reset(self) -> None:
        """Begin at zero, as a forked child must."""
        self._lock = threading.Lock()
        self._counts: dict[str, _Counts] = {}
        self._queues: set[str] = set()
        self._error_types: set[str] = set()

    def began(
        self, name: str, queue: str, queue_ns: int | None, prefetch_ns: int | None, *, redelivered: bool
    ) -> None:
        """Count a run that begins.

        Args:
            name: The task's.
            queue: The queue's.
            queue_ns: Since it was sent; below 0, of clocks that differ, is 0; None: unknown.
            prefetch_ns: Since it came in; None: unknown.
            redelivered: Whether it had been delivered before.
        """
        with self._lock:
            counts = self._counts_of(name)
            counts.redelivered += redelivered
            if queue_ns is not None:
                times = counts.queue_times.get(queue) or self._queue_times(counts, queue)
                _observe(times, queue_ns if queue_ns > 0 else 0)
            if prefetch_ns is not None:
                _observe(counts.prefetch_times, prefetch_ns)

    def ended(self, name: str, outcome: str, error_type: str = "", run_ns: int | None = None) -> None:
        """Count a run that has ended, or that will never begin.

        Args:
            name: The task's.
            outcome: How.
            error_type: `type_name` of what it raised.
            run_ns: How long it took; None: unknown, or it never ran.
        """
        with self._lock:
            counts = self._counts_of(name)
            if error_type:
                error_type = self._bounded(error_type, self._error_types, self._max_error_types)
            key = (outcome, error_type)
            counts.completed[key] = counts.completed.get(key, 0) + 1
            if run_ns is not None:
                _observe(counts.run_times_of(outcome), run_ns)

    def repeated(self, name: str, outcome: str, run_ns: int) -> None:
        """Count the run of something that had been run to its end before."""
        with self._lock:
            counts = self._counts_of(name)
            counts.duplicates += 1
            _observe(counts.run_times_of(outcome), run_ns)

    def retried(self, name: str) -> None:
        """Count a further try that was asked for."""
        with self._lock:
            self._counts_of(name).retries += 1

    def read(self) -> list[CeleryRow]:
        """Return a row for each name."""
        with self._lock:
            return [counts.read(name) for name, counts in self._counts.items()]

    def _counts_of(self, name: str) -> _Counts:
        counts = self._counts.get(name)
        if counts is None:
            if len(self._counts) >= MAX_NAMES:
                name = OTHER
            counts = self._counts.setdefault(name, _Counts())
        return counts

    def _queue_times(self, counts: _Counts, queue: str) -> Histogram:
        queue = self._bounded(queue, self._queues, MAX_QUEUES)
        return counts.queue_times.setdefault(queue, Histogram())

    @staticmethod
    def _bounded(value: str, known: set[str], limit: int) -> str:
        if value in known:
            return value
        if len(known) >= limit:
            return OTHER
        known.add(value)
        return value


class _Counts:
    """The numbers of one name, while they grow."""

    __slots__ = (
        *("completed", "duplicates", "prefetch_times", "queue_times"),
        *("redelivered", "retries", "run_times"),
    )

    def __init__(self) -> None:
        self.completed: dict[tuple[str, str], int] = {}
        self.duplicates = 0
        self.redelivered = 0
        self.retries = 0
        self.queue_times: dict[str, Histogram] = {}
        self.prefetch_times = Histogram()
        self.run_times: dict[str, Histogram] = {}

    def run_times_of(self, outcome: str) -> Histogram:
        times = self.run_times.get(outcome)
        if times is None:
            times = self.run_times[outcome] = Histogram()
        return times

    def read(self, name: str) -> CeleryRow:
        return CeleryRow(
            name,
            dict(self.completed),
            self.duplicates,
            self.redelivered,
            self.retries,
            {queue: times.read() for queue, times in self.queue_times.items()},
            self.prefetch_times.read(),
            {outcome: times.read() for outcome, times in self.run_times.items()},
        )


def _observe(times: Histogram, ns: int) -> None:
    pending = times.pending
    pending.append(ns)
    if len(pending) >= MAX_PENDING:
        times.sort_in()
