"""Who waits for whom, and who does so in a circle: pure functions of edges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from otel_concurrency.snapshot.live_tasks import Edge

MAX_CYCLES = 20


def cycles(edges: Iterable[Edge], can_be_woken: Collection[int] = ()) -> list[tuple[Edge, ...]]:
    """Return the circles of tasks that wait for each other for good, each once.

    Every edge must mean that its waiter cannot go on before the other does.

    Args:
        edges: Who waits for whom.
        can_be_woken: Tasks that somebody is going to wake, a timer for instance: with one of them no circle
            lasts, nor with a task that it waits for, which it is going to cancel.
    """
    by_waiter: dict[int, list[Edge]] = {}
    for edge in edges:
        by_waiter.setdefault(edge.waiter, []).append(edge)
    excused = _reached(by_waiter, can_be_woken)
    found: list[tuple[Edge, ...]] = []
    settled: set[int] = set(excused)
    for start in by_waiter:
        if start not in settled and len(found) < MAX_CYCLES:
            found.extend(_cycles_from(start, by_waiter, settled))
    return found[:MAX_CYCLES]


def _reached(by_waiter: Mapping[int, list[Edge]], starts: Iterable[int]) -> set[int]:
    reached: set[int] = set()
    left = list(starts)
    while left:
        task = left.pop()
        if task not in reached:
            reached.add(task)
            left.extend(edge.on for edge in by_waiter.get(task, ()) if edge.lock is None)
    return reached


def _cycles_from(
    start: int, by_waiter: Mapping[int, list[Edge]], settled: set[int]
) -> list[tuple[Edge, ...]]:
    """Go deep from one task; what was settled before is in no further circle."""
    found = []
    path: list[Edge] = []
    on_path: dict[int, int] = {start: 0}
    stack = [iter(by_waiter.get(start, ()))]
    while stack:
        edge = next(stack[-1], None)
        if edge is None:
            stack.pop()
            task = path.pop().on if path else start
            on_path.pop(task, None)
            settled.add(task)
        elif edge.on in on_path:
            found.append(_from_the_least((*path[on_path[edge.on] :], edge)))
        elif edge.on not in settled:
            path.append(edge)
            on_path[edge.on] = len(path)
            stack.append(iter(by_waiter.get(edge.on, ())))
    return found


def _from_the_least(cycle: tuple[Edge, ...]) -> tuple[Edge, ...]:
    first = min(range(len(cycle)), key=lambda place: cycle[place].waiter)
    return cycle[first:] + cycle[:first]
