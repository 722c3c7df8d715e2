"""Event loops: how each spends its time, who held it, and the process around it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from otel_concurrency.console.distribution import Distribution
from otel_concurrency.console.queries.scope import Reader, Scope
from otel_concurrency.console.queries.series import STEPS, growth, spreads, step_ns
from otel_concurrency.signals import names

PARTS = ("cpu", "run queue", "blocked", "idle")
MAX_LOOPS = 24
_OF = (names.EVENTLOOP_ID, names.EVENTLOOP_TYPE)


@dataclass(slots=True)
class Loop:
    """One event loop over the range.

    Attributes:
        service: Whose.
        instance: In which of its processes.
        loop_id: Its number there.
        kind: Such as `selector` or `uvloop`.
        shares: For each of `PARTS`, the share of wall time in each step, 0 to 1; none where nothing was told.
        delay: What callbacks waited for their turn, s, over the whole range.
        iterations: How long iterations took, s.
    """

    service: str
    instance: str
    loop_id: str
    kind: str
    shares: dict[str, list[float | None]] = field(default_factory=dict)
    delay: Distribution = field(default_factory=Distribution)
    iterations: Distribution = field(default_factory=Distribution)

    @property
    def busy(self) -> float | None:
        """Return the share of its time in which it was not idle; none where that is not known."""
        told = [share for share in self.shares.get("idle", ()) if share is not None]
        return 1 - sum(told) / len(told) if told else None


def loops(reader: Reader, scope: Scope, steps: int = STEPS) -> list[Loop]:
    """Return the loops that ran in the scope."""
    found: dict[tuple[str, str, str], Loop] = {}
    seconds: defaultdict[tuple[tuple[str, str, str], str], defaultdict[int, float]] = defaultdict(
        lambda: defaultdict(float)
    )

    def key(service: str, instance: str, labels: tuple[str, ...]) -> tuple[str, str, str]:
        at = (service, instance, labels[0])
        if at not in found and len(found) < MAX_LOOPS:
            found[at] = Loop(service, instance, labels[0], labels[1])
        return at

    for metric, part in (
        (names.LOOP_CPU_TIME.name, "cpu"),
        (names.LOOP_RUNQUEUE_TIME.name, "run queue"),
        (names.LOOP_BLOCKED_TIME.name, "blocked"),
    ):
        for value in growth(reader, scope, metric, _OF, steps=steps):
            seconds[key(value.service, value.instance, value.labels), part][value.step] += value.value
    for value in growth(reader, scope, names.LOOP_TIME.name, (*_OF, names.LOOP_STATE), steps=steps):
        part = "idle" if value.labels[2] == "idle" else "active"
        seconds[key(value.service, value.instance, value.labels), part][value.step] += value.value
    for at, loop in found.items():
        _share(loop, {part: seconds[at, part] for part in (*PARTS, "active")}, steps)
    for metric, kept in (
        (names.LOOP_DELAY.name, "delay"),
        (names.LOOP_ITERATION_DURATION.name, "iterations"),
    ):
        for each in spreads(reader, scope, metric, _OF):
            at = key(each.service, each.instance, each.labels)
            if at in found:
                getattr(found[at], kept).merge(each.spread)
    return sorted(found.values(), key=lambda loop: (loop.service, loop.instance, loop.loop_id))


def _share(loop: Loop, seconds: dict[str, defaultdict[int, float]], steps: int) -> None:
    """Turn seconds into shares of what was told of: a step may hold several collections, or none."""
    for part in PARTS:
        loop.shares[part] = [None] * steps
    for step in range(steps):
        active, idle = seconds["active"].get(step), seconds["idle"].get(step)
        whole = (active or 0.0) + (idle or 0.0)
        if whole <= 0:
            continue
        for part in PARTS:
            loop.shares[part][step] = min(1.0, seconds[part].get(step, 0.0) / whole)


@dataclass(frozen=True, slots=True)
class Heat:
    """A histogram over time.

    Attributes:
        bounds: Upper bounds of the rows, ascending.
        cells: Step, row and how many.
        quantiles: For 0.5, 0.9 and 0.99 the value in each step; none without any.
    """

    bounds: list[float]
    cells: list[tuple[int, int, int]]
    quantiles: dict[float, list[float | None]]


def heat(
    reader: Reader,
    scope: Scope,
    metric: str,
    *,
    where: dict[str, str] | None = None,
    steps: int = STEPS,
) -> Heat:
    """Return a histogram metric over time, all its series together, or those with certain attributes."""
    wanted = where or {}
    merged: defaultdict[int, Distribution] = defaultdict(Distribution)
    for each in spreads(reader, scope, metric, tuple(wanted), steps=steps):
        if each.labels == tuple(wanted.values()):
            merged[each.step].merge(each.spread)
    rows = sorted({_row(high) for spread in merged.values() for (_, high) in spread.buckets})
    place = {bound: at for at, bound in enumerate(rows)}
    counts: defaultdict[tuple[int, int], int] = defaultdict(int)
    for step, spread in merged.items():
        for (_, high), held in spread.buckets.items():
            counts[step, place[_row(high)]] += held
    quantiles: dict[float, list[float | None]] = {
        q: [
            merged[step].quantile(q) if step in merged and merged[step].count else None
            for step in range(steps)
        ]
        for q in (0.5, 0.9, 0.99)
    }
    return Heat(rows, [(step, row, held) for (step, row), held in counts.items()], quantiles)


def _row(high: float) -> float:
    """Return the row of a bucket: quarter octaves would be too many to tell apart, octaves are enough."""
    if high <= 0 or high == float("inf"):
        return high
    bound = 2.0**-30
    while bound * 1.0000001 < high:
        bound *= 2
    return bound


def step_starts(scope: Scope, steps: int = STEPS) -> list[int]:
    """Return when each step begins, ns since the epoch."""
    length = step_ns(scope, steps)
    return [scope.start_ns + at * length for at in range(steps)]
