"""A Celery probe's rows as metrics, and a log event for what was run twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.probes.celery_tasks import CeleryProbe, CeleryRow
from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.rate_limit import RateLimit
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading, Labels, Reading, SumReading

FINISHED = "finished"

_Totals = list[tuple[Labels, int]]
_Distributions = list[tuple[Labels, HistogramState]]


class CeleryMetrics:
    """A source with everything that a Celery probe counts.

    `completed` with outcome `finished` is there from a name's first run on, so that its rate has a beginning;
    what else happens, once it happened.

    Args:
        probe: Read at each collection.
        clock: Wall-clock time, ns since the epoch.
        monotonic_ns: The clock of the rate limit.
    """

    def __init__(
        self,
        probe: CeleryProbe,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._probe = probe
        self._clock = clock
        self._now_ns = monotonic_ns
        self._limit = RateLimit(burst=1)
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<CeleryMetrics of {self._probe!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: the probe was reset."""
        self.start_unix_ns = self._clock()
        self._limit.reset()

    def collect(self) -> list[Reading]:
        """Read the probe once."""
        return _readings(self._probe.read())

    def repeated(self, name: str, task_id: str, task_try: int, outcome: str) -> None:
        """Tell of a run of what had been run to its end before; one in 10 s of a name.

        Args:
            name: The task's.
            task_id: Its id.
            task_try: Which try it is, the first being 0.
            outcome: How it ended this time.
        """
        left_out = self._limit.admit(name, self._now_ns())
        if left_out is None:
            return
        now = self._clock()
        attributes: dict[str, AnyValue] = {
            names.CELERY_TASK_NAME: name,
            names.CELERY_TASK_ID: task_id,
            names.CELERY_TASK_TRY: task_try,
            names.CELERY_TASK_OUTCOME: outcome,
        }
        if left_out:
            attributes[names.SUPPRESSED] = left_out
        get_logger(names.SCOPE_NAME, __version__).emit(
            timestamp=now,
            observed_timestamp=now,
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            body=f"Task {name}[{task_id}] was run again, although it had ended before: {outcome}",
            event_name=names.CELERY_DUPLICATE,
            attributes=attributes,
        )


def _readings(rows: Iterable[CeleryRow]) -> list[Reading]:
    completed: _Totals = []
    duplicates: _Totals = []
    redelivered: _Totals = []
    retries: _Totals = []
    queue_durations: _Distributions = []
    prefetch_durations: _Distributions = []
    durations: _Distributions = []
    for row in rows:
        task: Labels = {names.CELERY_TASK_NAME: row.name}
        completed += _completed(row)
        for totals, total in (
            (duplicates, row.duplicates),
            (redelivered, row.redelivered),
            (retries, row.retries),
        ):
            if total:
                totals.append((task, total))
        queue_durations += (
            ({**task, names.MESSAGING_DESTINATION: queue} if queue else task, state)
            for queue, state in row.queue_times.items()
        )
        if row.prefetch_times.count:
            prefetch_durations.append((task, row.prefetch_times))
        durations += (
            ({**task, names.CELERY_TASK_OUTCOME: outcome}, state) for outcome, state in row.run_times.items()
        )
    return [
        SumReading(names.CELERY_COMPLETED, completed),
        SumReading(names.CELERY_DUPLICATES, duplicates),
        SumReading(names.CELERY_REDELIVERED, redelivered),
        SumReading(names.CELERY_RETRIES, retries),
        HistogramReading(names.CELERY_QUEUE_DURATION, queue_durations),
        HistogramReading(names.CELERY_PREFETCH_DURATION, prefetch_durations),
        HistogramReading(names.CELERY_DURATION, durations),
    ]


def _completed(row: CeleryRow) -> Iterable[tuple[Labels, int]]:
    if (FINISHED, "") not in row.completed:
        yield {names.CELERY_TASK_NAME: row.name, names.CELERY_TASK_OUTCOME: FINISHED}, 0
    for (outcome, error_type), total in row.completed.items():
        labels: dict[str, str | int] = {names.CELERY_TASK_NAME: row.name, names.CELERY_TASK_OUTCOME: outcome}
        if error_type:
            labels[names.ERROR_TYPE] = error_type
        yield labels, total
