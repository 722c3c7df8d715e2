"""What others know that a snapshot tells: whoever counts tasks, times loops or watches pools says so here.

Nothing is asked until a snapshot is taken, and a snapshot without any of them has just less to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any, Protocol

from otel_concurrency.probes.loop_time import TimedLoop
from otel_concurrency.probes.tasks import TaskNumbers
from otel_concurrency.probes.work import PoolLevel
from otel_concurrency.snapshot.live import LivePool


class Probe(Protocol):
    """Who counts tasks, and knows single ones."""

    way: str

    def numbers(self, task: Any, /) -> TaskNumbers | None:
        """Return what is known of a live task; None: nothing."""
        ...


class Sources:
    """What a snapshot asks, each in the order in which it was added; replaced, never changed.

    Attributes:
        probes: Of tasks.
        traces: Return the ids of trace and span that a context is in, hexadecimal, or None.
        sites: Return where an object was made, `module:line`, or None.
        named: Go through locks and queues that are known by name.
        holders: Return the tasks that have a lock, and since when, by `time.monotonic_ns()`.
        loops: Return the loops that are timed.
        executors: Return how full executors are.
        pools: Return connection pools.
    """

    def __init__(self) -> None:
        self.probes: tuple[Probe, ...] = ()
        self.traces: tuple[Callable[[Context], tuple[str, str] | None], ...] = ()
        self.sites: tuple[Callable[[object], str | None], ...] = ()
        self.named: tuple[Callable[[], Iterator[tuple[Any, str]]], ...] = ()
        self.holders: tuple[Callable[[object], list[tuple[Any, int]]], ...] = ()
        self.loops: tuple[Callable[[], Iterable[TimedLoop]], ...] = ()
        self.executors: tuple[Callable[[], Iterable[PoolLevel]], ...] = ()
        self.pools: tuple[Callable[[], Iterable[LivePool]], ...] = ()

    def add(self, **sources: Any) -> Callable[[], None]:
        """Ask these, too, by the names of the attributes; returns what takes them back."""
        for name, source in sources.items():
            setattr(self, name, (*getattr(self, name), source))

        def forget() -> None:
            for name, source in sources.items():
                setattr(self, name, tuple(each for each in getattr(self, name) if each is not source))

        return forget


SOURCES = Sources()
"""Those of this process."""
