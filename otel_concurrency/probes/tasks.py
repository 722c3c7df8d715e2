"""What a task probe keeps, one row per coroutine, and which of the three ways to keep it serves here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otel_concurrency.probes.histogram import HistogramState

OTHER = "_other"
"""The row of every coroutine, and the error type, beyond a table's limit."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """All tasks of one coroutine function, frozen; every number only grows, but `live`.

    Attributes:
        function: `module.qualname` of the coroutine function, or `_other`.
        created: Tasks made.
        finished: Tasks that returned.
        cancelled: Tasks that ended cancelled.
        destroyed: Tasks that were garbage-collected while pending ("Task was destroyed but it is pending!").
        failed: Tasks that raised, by qualified exception type.
        live: Tasks not done: `created - finished - cancelled - destroyed - sum(failed)`.
        sees_steps: Whether `busy_ns`, `steps`, `step_durations` and `start_delays` are kept at all.
        busy_ns: Time inside steps, ns.
        steps: Steps begun.
        finished_durations: Creation to end of the finished ones.
        cancelled_durations: Creation to end of the cancelled ones.
        failed_durations: Creation to end of the failed ones.
        start_delays: Creation to first step.
        step_durations: Each step.
    """

    function: str
    created: int
    finished: int
    cancelled: int
    destroyed: int
    failed: Mapping[str, int]
    live: int
    sees_steps: bool
    busy_ns: int
    steps: int
    finished_durations: HistogramState
    cancelled_durations: HistogramState
    failed_durations: HistogramState
    start_delays: HistogramState
    step_durations: HistogramState


@dataclass(frozen=True, slots=True)
class LoopRow:
    """The live tasks of one event loop, frozen.

    Attributes:
        loop_id: 0 for the first loop seen, then 1, ...; `None` for all loops beyond the limit.
        loop_type: `selector`, `proactor`, `uvloop`, `winloop` or `other`.
        running: Tasks inside a step.
        scheduled: Tasks ready to run: not started yet, or suspended without a future (`asyncio.sleep(0)`).
        waiting: Tasks suspended on a future.
        oldest_age_ns: Age of the oldest live task, ns; 0 without one.
        oldest_function: The `TaskRow.function` of that task; empty without one.
    """

    loop_id: int | None
    loop_type: str
    running: int
    scheduled: int
    waiting: int
    oldest_age_ns: int
    oldest_function: str
