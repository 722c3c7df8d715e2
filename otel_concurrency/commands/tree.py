"""`otel-concurrency tree`: who waits for whom, and who waits in a circle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.arguments import positive
from otel_concurrency.commands.programs import add_program, asking, print_json

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.console.text import Style
    from otel_concurrency.endpoints.client import Program
    from otel_concurrency.snapshot import Snapshot

LIMIT = 1_000
_DEEPEST = 100


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    tree = commands.add_parser(
        "tree",
        help="draw which tasks wait for which others",
        description="Draw which tasks wait for which others, through gather, task groups and locks; "
        "deadlocks come first. The exit code is 1 where there is a deadlock.",
    )
    add_program(tree)
    tree.add_argument("--limit", type=positive, default=LIMIT, metavar="N", help=f"tasks looked at ({LIMIT})")
    tree.set_defaults(run=asking(run))


def run(options: argparse.Namespace, stop: StopRequest, program: Program) -> int:
    """Ask once, and draw."""
    from otel_concurrency.console.text import Style
    from otel_concurrency.snapshot import Snapshot

    data = program.ask("/debug/graph", limit=options.limit)
    if options.json:
        print_json(data)
    seen = Snapshot.from_data({name: part for name, part in data.items() if name != "orphans"})
    if not options.json:
        print("\n".join(tree_lines(seen, Style.of(sys.stdout))))
    return 1 if seen.deadlocks else 0


def tree_lines(seen: Snapshot, style: Style) -> list[str]:
    """Return the drawing."""
    return [style.finish(line) for line in (*_deadlock_lines(seen, style), *_Tree(seen, style).lines())]


def _deadlock_lines(seen: Snapshot, style: Style) -> Iterator[str]:
    from otel_concurrency.console.text import clean

    for deadlock in seen.deadlocks:
        parts = []
        for name, coroutine, lock in zip(deadlock.names, deadlock.coroutines, deadlock.locks, strict=True):
            parts.append(f"{name} ({coroutine}) waits for {f'{lock}, held by ' if lock else ''}")
        yield style.red("deadlock: ") + clean("".join(parts) + deadlock.names[0])


class _Tree:
    def __init__(self, seen: Snapshot, style: Style) -> None:
        self._style = style
        self._tasks = {task.id: task for task in seen.tasks}
        self._on: dict[int, list[int]] = {}
        for edge in seen.edges:
            if edge.waiter in self._tasks:
                self._on.setdefault(edge.waiter, []).append(edge.on)
        self._drawn: set[int] = set()

    def lines(self) -> Iterator[str]:
        waited_for = {on for targets in self._on.values() for on in targets}
        for task in self._tasks:
            if task not in waited_for:
                yield from self._branch(task, "", "", 0)
        for task in self._tasks:  # what is left are circles, which have no beginning
            if task not in self._drawn:
                yield from self._branch(task, "", "", 0)

    def _branch(self, task: int, first: str, other: str, depth: int) -> Iterator[str]:
        from otel_concurrency.console.text import branch, trunk

        again = task in self._drawn
        self._drawn.add(task)
        targets = self._on.get(task, [])
        yield first + self._words(task) + (" …" if again and targets else "")
        if again or depth > _DEEPEST:
            return
        for position, target in enumerate(targets):
            is_last = position == len(targets) - 1
            yield from self._branch(target, other + branch(is_last), other + trunk(is_last), depth + 1)

    def _words(self, identity: int) -> str:
        from otel_concurrency.commands.task_words import place_words, wait_words
        from otel_concurrency.console.text import clean

        task = self._tasks.get(identity)
        if task is None:
            return self._style.dim("a task that is not told")
        words = clean(f"{task.name}  {task.coroutine}")
        wait = wait_words(task.wait) or task.state
        place = place_words(task)
        told = clean(f"  {wait}{f'  {place}' if place else ''}")
        return (
            words
            + self._style.dim(told)
            + (self._style.red("  nobody can wake it") if task.is_orphan else "")
        )
