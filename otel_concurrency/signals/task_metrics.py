"""A task probe's rows as metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from otel_concurrency.probes.histogram import HistogramState
from otel_concurrency.probes.tasks import LoopRow, TaskRow
from otel_concurrency.probes.waits import WaitRow
from otel_concurrency.signals import names
from otel_concurrency.signals.loop_labels import loop_labels
from otel_concurrency.signals.readings import GaugeReading, HistogramReading, Labels, Reading, SumReading
from otel_concurrency.signals.wait_metrics import wait_readings

_FINISHED = "finished"
_FAILED = "failed"
_CANCELLED = "cancelled"
_DESTROYED = "destroyed"

_Totals = list[tuple[Labels, int]]
_Distributions = list[tuple[Labels, HistogramState]]


class TaskRows(Protocol):
    """What we read of a task probe."""

    def read_rows(self) -> Sequence[TaskRow]:
        """Return one row per coroutine function, and drain the exemplars into them."""
        ...

    def read_loops(self) -> Sequence[LoopRow]:
        """Return one row per event loop."""
        ...

    def read_waits(self) -> list[WaitRow]:
        """Return a row for each kind of wait."""
        ...

    def untracked(self) -> int:
        """Return how many of the tasks alive were made before the probe was there."""
        ...


class TaskMetrics:
    """A source with everything that a task probe counts.

    How many tasks of a function are alive is no metric: it is `created` minus `completed`. Of the outcomes,
    `finished` is there from a function's first task on, so that its rate has a beginning; the others once
    they happened.

    Args:
        probe: Read at each collection; all readers together see each of its exemplars once.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, probe: TaskRows, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._probe = probe
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<TaskMetrics of {self._probe!r}>"

    def begin(self) -> None:
        """Say that the totals are zero now: the probe was reset."""
        self.start_unix_ns = self._clock()

    def collect(self) -> list[Reading]:
        """Read the probe once."""
        return [
            *_function_readings(self._probe.read_rows()),
            *_loop_readings(self._probe.read_loops()),
            SumReading(names.TASKS_UNTRACKED, [({}, self._probe.untracked())]),
            *wait_readings(self._probe.read_waits()),
        ]


def _function_readings(rows: Iterable[TaskRow]) -> list[Reading]:
    created: _Totals = []
    completed: _Totals = []
    busy_time: _Totals = []
    steps: _Totals = []
    durations: _Distributions = []
    start_delays: _Distributions = []
    step_durations: _Distributions = []
    for row in rows:
        if not row.created:
            continue
        function: Labels = {names.CODE_FUNCTION_NAME: row.function}
        created.append((function, row.created))
        completed += _completed(row)
        durations += (
            ({names.CODE_FUNCTION_NAME: row.function, names.TASK_OUTCOME: outcome}, state)
            for outcome, state in (
                (_FINISHED, row.finished_durations),
                (_FAILED, row.failed_durations),
                (_CANCELLED, row.cancelled_durations),
            )
            if state.count
        )
        if row.sees_steps:
            busy_time.append((function, row.busy_ns))
            steps.append((function, row.steps))
            start_delays.append((function, row.start_delays))
            step_durations.append((function, row.step_durations))
    return [
        SumReading(names.TASK_CREATED, created),
        SumReading(names.TASK_COMPLETED, completed),
        HistogramReading(names.TASK_DURATION, durations),
        HistogramReading(names.TASK_START_DELAY, start_delays),
        SumReading(names.TASK_BUSY_TIME, busy_time),
        SumReading(names.TASK_STEPS, steps),
        HistogramReading(names.TASK_STEP_DURATION, step_durations),
    ]


def _completed(row: TaskRow) -> Iterable[tuple[Labels, int]]:
    for outcome, total in (
        (_FINISHED, row.finished),
        (_CANCELLED, row.cancelled),
        (_DESTROYED, row.destroyed),
    ):
        if total or outcome is _FINISHED:
            yield {names.CODE_FUNCTION_NAME: row.function, names.TASK_OUTCOME: outcome}, total
    for error_type, total in row.failed.items():
        yield (
            {
                names.CODE_FUNCTION_NAME: row.function,
                names.TASK_OUTCOME: _FAILED,
                names.ERROR_TYPE: error_type,
            },
            total,
        )


def _loop_readings(rows: Iterable[LoopRow]) -> list[Reading]:
    counts: _Totals = []
    ages: _Totals = []
    for row in rows:
        loop = loop_labels(row.loop_id, row.loop_type)
        counts += (
            ({**loop, names.TASK_STATE: state}, total)
            for state, total in (
                ("running", row.running),
                ("scheduled", row.scheduled),
                ("waiting", row.waiting),
            )
        )
        if row.oldest_function:
            ages.append(({**loop, names.CODE_FUNCTION_NAME: row.oldest_function}, row.oldest_age_ns))
    return [SumReading(names.TASK_COUNT, counts), GaugeReading(names.TASK_AGE_MAX, ages)]
