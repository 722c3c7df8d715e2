"""The task table: one line a coroutine and service, from the `asyncio.task.*` metrics received."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from otel_concurrency.console.distribution import Distribution
from otel_concurrency.console.store import Store
from otel_concurrency.signals.names import (
    CODE_FUNCTION_NAME,
    TASK_BUSY_TIME,
    TASK_COMPLETED,
    TASK_CREATED,
    TASK_DURATION,
    TASK_OUTCOME,
    TASK_STEPS,
)


@dataclass(slots=True)
class TaskLine:
    """All tasks of one coroutine in one service, all its processes together.

    Attributes:
        service: The `service.name`.
        function: The `code.function.name`.
        created: Tasks made.
        outcomes: Tasks that ended, by outcome.
        durations: Creation to end, s.
        busy_s: Time inside steps, s; none where the service's probe does not see steps.
        steps: Steps begun; none likewise.
    """

    service: str
    function: str
    created: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    durations: Distribution = field(default_factory=Distribution)
    busy_s: float | None = None
    steps: int | None = None

    @property
    def live(self) -> int:
        """Count the tasks not done."""
        return self.created - sum(self.outcomes.values())

    @property
    def failed(self) -> int:
        """Count the tasks that raised."""
        return self.outcomes.get("failed", 0)


def read_tasks(store: Store) -> list[TaskLine]:
    """Return the lines, the busiest first; empty when no `asyncio.task.created` was received."""
    lines: dict[tuple[str, str], TaskLine] = {}
    for service, function, _, value in _sums(store, TASK_CREATED.name):
        lines.setdefault((service, function), TaskLine(service, function)).created += int(value)
    for service, function, outcome, value in _sums(store, TASK_COMPLETED.name):
        if line := lines.get((service, function)):
            line.outcomes[outcome] = line.outcomes.get(outcome, 0) + int(value)
    for service, function, _, value in _sums(store, TASK_BUSY_TIME.name):
        if line := lines.get((service, function)):
            line.busy_s = (line.busy_s or 0.0) + value
    for service, function, _, value in _sums(store, TASK_STEPS.name):
        if line := lines.get((service, function)):
            line.steps = (line.steps or 0) + int(value)
    for (service, function), durations in _distributions(store, TASK_DURATION.name).items():
        if line := lines.get((service, function)):
            line.durations = durations
    return sorted(lines.values(), key=lambda line: (-(line.busy_s or 0.0), -line.created, line.function))


# Of a cumulative series the last point counts, of a delta series all do. A restart begins a new one, with a
# start of its own, and what the old one had counted stands.
_CURRENT_POINTS = f"""
    SELECT
        resources.service,
        points.attributes->>'$."{CODE_FUNCTION_NAME}"',
        coalesce(points.attributes->>'$."{TASK_OUTCOME}"', ''),
        points.value,
        points.value_count, points.value_sum, points.value_min, points.value_max, points.distribution
    FROM metric_points AS points JOIN resources USING (resource_key)
    WHERE points.name = ?
    QUALIFY points.temporality = 'delta' OR row_number() OVER (
        PARTITION BY resource_key, scope_key, points.attributes, start_ns ORDER BY time_ns DESC, id DESC) = 1
"""


def _sums(store: Store, metric: str) -> Iterator[tuple[str, str, str, float]]:
    for service, function, outcome, value, *_ in store.query(_CURRENT_POINTS, [metric]):
        if function is not None and value is not None:
            yield service, function, outcome, value


def _distributions(store: Store, metric: str) -> dict[tuple[str, str], Distribution]:
    merged: defaultdict[tuple[str, str], Distribution] = defaultdict(Distribution)
    for service, function, _, _, held, total, low, high, distribution in store.query(
        _CURRENT_POINTS, [metric]
    ):
        if function is not None and distribution is not None:
            merged[service, function].add(held, total, low, high, json.loads(distribution))
    return merged
