"""Tasks by coroutine: what was made, what came of it, and how it spent its time, within a scope."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from otel_concurrency.console.distribution import Distribution
from otel_concurrency.console.queries.scope import Reader, Scope
from otel_concurrency.console.queries.series import Spread, growth, spreads
from otel_concurrency.signals import names

MAX_COROUTINES = 400
_OF = (names.CODE_FUNCTION_NAME,)


@dataclass(slots=True)
class Coroutine:
    """The tasks of one coroutine function in one service, all its processes together.

    Attributes:
        service: The `service.name`.
        function: The `code.function.name`.
        live: Alive at the end of the range; none where that is not known.
        created: Made in the range.
        outcomes: Ended in the range, by outcome.
        durations: Creation to end, s.
        start_delays: Creation to first step, s.
        steps: How long steps took, s.
        busy_s: Time inside steps, s.
        step_count: Steps begun.
    """

    service: str
    function: str
    live: int = 0
    created: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    durations: Distribution = field(default_factory=Distribution)
    start_delays: Distribution = field(default_factory=Distribution)
    steps: Distribution = field(default_factory=Distribution)
    busy_s: float = 0.0
    step_count: int = 0

    @property
    def completed(self) -> int:
        """Count the tasks that ended in the range."""
        return sum(self.outcomes.values())

    @property
    def failed_share(self) -> float:
        """Return which share of those that ended had raised."""
        return self.outcomes.get("failed", 0) / max(1, self.completed)


def coroutines(reader: Reader, scope: Scope) -> list[Coroutine]:
    """Return the coroutines of which there were tasks in the scope, the busiest first."""
    found: dict[tuple[str, str], Coroutine] = {}

    def line(service: str, function: str) -> Coroutine:
        return found.setdefault((service, function), Coroutine(service, function))

    for value in growth(reader, scope, names.TASK_CREATED.name, _OF, steps=1):
        line(value.service, value.labels[0]).created += int(value.value)
    by_outcome = (*_OF, names.TASK_OUTCOME)
    for value in growth(reader, scope, names.TASK_COMPLETED.name, by_outcome, steps=1):
        function, outcome = value.labels
        outcomes = line(value.service, function).outcomes
        outcomes[outcome] = outcomes.get(outcome, 0) + int(value.value)
    for value in growth(reader, scope, names.TASK_BUSY_TIME.name, _OF, steps=1):
        line(value.service, value.labels[0]).busy_s += value.value
    for value in growth(reader, scope, names.TASK_STEPS.name, _OF, steps=1):
        line(value.service, value.labels[0]).step_count += int(value.value)
    for metric, kept in (
        (names.TASK_DURATION.name, "durations"),
        (names.TASK_START_DELAY.name, "start_delays"),
        (names.TASK_STEP_DURATION.name, "steps"),
    ):
        for (service, function), spread in _by_function(spreads(reader, scope, metric, _OF)):
            setattr(line(service, function), kept, spread)
    for service, function, live in _live(reader, scope):
        line(service, function).live = live
    kept_lines = [
        each for each in found.values() if each.created or each.completed or each.live or each.step_count
    ]
    kept_lines.sort(key=lambda each: (-each.busy_s, -each.created, each.service, each.function))
    return kept_lines[:MAX_COROUTINES]


def _by_function(found: Iterable[Spread]) -> Iterable[tuple[tuple[str, str], Distribution]]:
    merged: dict[tuple[str, str], Distribution] = {}
    for each in found:
        merged.setdefault((each.service, each.labels[0]), Distribution()).merge(each.spread)
    return merged.items()


def _live(reader: Reader, scope: Scope) -> list[tuple[str, str, int]]:
    """Return created minus completed at the end of the range, from cumulative series."""
    function = f"attributes->>'/{names.CODE_FUNCTION_NAME}'"
    # Of a process that has gone, tasks are no longer alive, whatever it counted last.
    sql = f"""
        WITH last AS (
            SELECT resource_key, name, {function} AS function, arg_max(value, time_ns) AS value,
                max(time_ns) AS told_ns
            FROM metric_points
            WHERE name IN ('{names.TASK_CREATED.name}', '{names.TASK_COMPLETED.name}')
                AND temporality = 'cumulative' AND time_ns BETWEEN $from AND $to AND {scope.of_resource}
            GROUP BY resource_key, name, function, attributes, start_ns)
        SELECT service, function, sum(CASE WHEN name = '{names.TASK_CREATED.name}' THEN value ELSE -value END)
        FROM last JOIN resources USING (resource_key)
        WHERE told_ns > $to - 90000000000 OR $to - $from < 0
        GROUP BY service, function HAVING function IS NOT NULL
    """
    return [(service, name, max(0, int(live))) for service, name, live in reader.query(sql, scope.parameters)]
