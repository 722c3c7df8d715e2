"""What the pure task probe keeps: a row per coroutine function, and the live tasks of each loop."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_concurrency.probes.histogram import Histogram, HistogramState
from otel_concurrency.probes.tasks import TaskCount, TaskRow

if TYPE_CHECKING:
    from otel_concurrency.probes.pure import PureTaskProbe

_NOTHING = HistogramState()


class StepTotals:
    """The steps of one function's tasks, where somebody sees them."""

    __slots__ = ("busy_ns", "durations", "start_delays", "steps")

    def __init__(self) -> None:
        self.steps = self.busy_ns = 0
        self.start_delays = Histogram()
        self.durations = Histogram()


class Row:
    """All tasks of one coroutine function."""

    __slots__ = (
        "cancelled_durations",
        "created",
        "destroyed",
        "failed",
        "failed_durations",
        "finished_durations",
        "function",
        "steps",
    )

    def __init__(self, function: str) -> None:
        self.function = function
        self.begin()

    def begin(self) -> None:
        self.created = 0  # as read last
        self.destroyed = 0  # the others are as many as their durations
        self.failed: dict[str, int] = {}
        self.finished_durations = Histogram()
        self.cancelled_durations = Histogram()
        self.failed_durations = Histogram()
        self.steps: StepTotals | None = None


def _no_loop() -> None:
    """Nothing refers to a loop that has no id."""


class LoopTasks:
    """The live tasks of one loop in order of creation, each under the time it was made at, made unique."""

    __slots__ = ("live", "loop_id", "loop_type", "probe", "reference")

    def __init__(self, probe: PureTaskProbe, loop: Any, loop_id: int | None, loop_type: str) -> None:
        self.probe = probe
        self.reference: Callable[[], Any] = weakref.ref(loop) if loop_id is not None else _no_loop
        self.loop_id = loop_id
        self.loop_type = loop_type
        self.live: dict[int, Row] = {}


def read_ended(row: Row) -> tuple[HistogramState, HistogramState, HistogramState]:
    """Return the durations of a row's finished, cancelled and failed tasks, exemplars drained."""
    return row.finished_durations.read(), row.cancelled_durations.read(), row.failed_durations.read()


def read_row(row: Row, ended: tuple[HistogramState, HistogramState, HistogramState], live: int) -> TaskRow:
    """Return the numbers of a row.

    Args:
        row: The row.
        ended: What `read_ended` returned.
        live: How many of its tasks were alive after that.
    """
    steps = row.steps
    finished, cancelled, failed = ended
    # A task that is about to end may be in none of these for a moment, and no sum goes back.
    row.created = max(row.created, finished.count + cancelled.count + failed.count + row.destroyed + live)
    return TaskRow(
        function=row.function,
        created=row.created,
        finished=finished.count,
        cancelled=cancelled.count,
        destroyed=row.destroyed,
        failed=dict(row.failed),
        live=live,
        sees_steps=steps is not None,
        busy_ns=steps.busy_ns if steps is not None else 0,
        steps=steps.steps if steps is not None else 0,
        finished_durations=finished,
        cancelled_durations=cancelled,
        failed_durations=failed,
        start_delays=steps.start_delays.read() if steps is not None else _NOTHING,
        step_durations=steps.durations.read() if steps is not None else _NOTHING,
    )


def peek_row(row: Row, live: int) -> TaskCount:
    """Return the numbers of a row of which so many tasks are alive; nothing is drained."""
    finished = row.finished_durations.peek()
    others = (row.cancelled_durations, row.failed_durations)
    done = finished.count + sum(each.peek().count for each in others) + row.destroyed
    steps = row.steps
    return TaskCount(
        row.function,
        max(row.created, done + live),
        done,
        live,
        steps.steps if steps is not None else 0,
        steps.busy_ns if steps is not None else 0,
        finished,
        sees_steps=steps is not None,
    )
