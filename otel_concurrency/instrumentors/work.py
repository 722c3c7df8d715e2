"""The one work probe of a process, and its metrics: shared by all instrumentors that count work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from opentelemetry import context as opentelemetry_context

from otel_concurrency.config import Config
from otel_concurrency.hooks import fork
from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.readers import READERS
from otel_concurrency.probes.work import WorkProbe
from otel_concurrency.signals.current_context import SPAN_KEY
from otel_concurrency.signals.names import UNFINISHED_WORK_ITEMS
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.shutdown_events import count_unfinished
from otel_concurrency.signals.work_metrics import ReadLevels, WorkMetrics
from otel_concurrency.snapshot.sources import SOURCES


class SharedWork:
    """Made for the first instrumentor that joins, and let go of by the last that leaves.

    Attributes:
        probe: Counts.
        metrics: Tells; `metrics.watch` takes the levels of more pools.
    """

    def __init__(self, config: Config) -> None:
        self.probe: WorkProbe = make_work_probe(
            native=config.native,
            max_error_types=config.max_error_types,
            # Where the default runtime context keeps the current span; another one has no such variable.
            origin=getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None),
            span_key=SPAN_KEY,
        )
        self.metrics = WorkMetrics(self.probe)
        self.forget_fork = fork.in_child(self._begin_in_child)
        self.forget_unfinished = count_unfinished(UNFINISHED_WORK_ITEMS, self.metrics.unfinished)
        self.withdraw = READERS.offer("work", self.probe.peek)
        self.forget_source = SOURCES.add(executors=self.metrics.read_levels)
        self.users = 0
        default_producer().register(self.metrics)

    def _begin_in_child(self) -> None:
        self.probe.reset()
        self.metrics.begin()

    def close(self) -> None:
        """Tell nobody any more."""
        self.forget_fork()
        self.forget_unfinished()
        self.withdraw()
        self.forget_source()
        default_producer().unregister(self.metrics)


_shared: SharedWork | None = None


def join(options: Mapping[str, object], read_levels: ReadLevels | None = None) -> WorkJoin:
    """Return the process's work probe, made now if nobody has joined yet.

    Args:
        options: As `Config.from_options` takes them; those of whoever joins first count.
        read_levels: How full the pools are, asked at each collection.
    """
    global _shared
    if _shared is None:
        _shared = SharedWork(Config.from_options(options, os.environ))
    return WorkJoin(_shared, read_levels)


class WorkJoin:
    """One instrumentor's share.

    Attributes:
        probe: The process's work probe.
    """

    def __init__(self, shared: SharedWork, read_levels: ReadLevels | None) -> None:
        self._shared = shared
        self.probe = shared.probe
        shared.users += 1
        self._undo: list[Callable[[], None]] = []
        if read_levels is not None:
            self.watch(read_levels)

    def watch(self, read_levels: ReadLevels) -> None:
        """Ask this, too, for the levels of live pools."""
        self._undo += (self._shared.metrics.watch(read_levels), READERS.offer("levels", read_levels))

    def leave(self) -> None:
        """Give it back; the last one ends it."""
        global _shared
        while self._undo:
            self._undo.pop()()
        self._shared.users -= 1
        if not self._shared.users:
            self._shared.close()
            _shared = None
