"""The threads of this process as metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from otel_concurrency.probes.thread_states import ThreadSample
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import GaugeReading, Reading, SumReading


class Sampler(Protocol):
    """Looks at the threads of this process."""

    def sample(self) -> ThreadSample:
        """Look once."""
        ...


class ThreadMetrics:
    """A source with what threads are doing, and the CPU time that they took.

    Args:
        sampler: Looks at the threads.
        started_unix_ns: When this process started, ns since the epoch: threads have counted since then.
    """

    def __init__(self, sampler: Sampler, *, started_unix_ns: Callable[[], int | None]) -> None:
        self._sampler = sampler
        self._started_unix_ns = started_unix_ns
        self._since_unix_ns = time.time_ns()

    def __repr__(self) -> str:
        return f"<ThreadMetrics of {self._sampler!r}>"

    @property
    def start_unix_ns(self) -> int:
        """When the totals were zero: at the start of this process."""
        return self._started_unix_ns() or self._since_unix_ns

    def collect(self) -> list[Reading]:
        """Sample once."""
        sample = self._sampler.sample()
        return [
            SumReading(
                names.THREAD_COUNT,
                [
                    ({names.THREAD_NAME: group, names.THREAD_STATE: state}, count)
                    for (group, state), count in sample.states.items()
                ],
            ),
            SumReading(
                names.THREAD_SYNC_WAITING,
                [({names.THREAD_SYNC_TYPE: kind}, count) for kind, count in sample.waiting.items()],
            ),
            SumReading(
                names.THREAD_CPU_TIME,
                [({names.THREAD_NAME: group}, ns) for group, ns in sample.cpu_ns.items()],
            ),
            GaugeReading(names.MAIN_THREAD_ALIVE, [({}, int(sample.main_is_alive))]),
        ]
