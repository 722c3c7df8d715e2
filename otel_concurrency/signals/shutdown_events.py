"""What a shutdown tells of itself: that it started, what it waits for, how long it took."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import HistogramReading

Count = Callable[[], int]
Undo = Callable[[], None]

_logger = logging.getLogger(__name__)
_unfinished: dict[str, tuple[Count, ...]] = {names.UNFINISHED_TASKS: (), names.UNFINISHED_WORK_ITEMS: ()}


def count_unfinished(what: str, count: Count) -> Undo:
    """Ask this for a part of what a shutdown may wait for; returns what takes it back.

    Args:
        what: `names.UNFINISHED_TASKS` or `names.UNFINISHED_WORK_ITEMS`.
        count: Called from a thread of ours, once a second while a shutdown waits.
    """
    _unfinished[what] = (*_unfinished[what], count)

    def forget() -> None:
        _unfinished[what] = tuple(each for each in _unfinished[what] if each is not count)

    return forget


class ShutdownReport:
    """Emits the events of one shutdown, and is a source with their duration.

    Args:
        clock: Monotonic time, ns.
        unix_clock: Wall-clock time, ns since the epoch.
    """

    def __init__(
        self, *, clock: Callable[[], int] = time.monotonic_ns, unix_clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._clock = clock
        self._unix_clock = unix_clock
        self.reset()

    def __repr__(self) -> str:
        return f"<ShutdownReport [{self._reason or 'nothing yet'}]>"

    def reset(self) -> None:
        """Know nothing: at first, and again in a forked child."""
        self._lock = threading.Lock()
        self._reason = ""
        self._is_told = False
        self._durations: dict[str, Histogram] = {}
        self.start_unix_ns = self._unix_clock()

    def begin(self, reason: str) -> None:
        """Remember when and why the shutdown began; nothing is emitted."""
        self._reason, self._is_told = reason, False
        self._began_ns, self._began_unix_ns = self._clock(), self._unix_clock()

    def started(self) -> None:
        """Say once that it has begun, and when that was."""
        if not self._is_told:
            self._is_told = True
            self._emit(names.SHUTDOWN_STARTED, f"Shutdown started: {self._reason}", {}, self._began_unix_ns)

    def progress(self) -> None:
        """Say what it waits for."""
        waits = {what: sum(_ask(counts)) for what, counts in _unfinished.items()}
        tasks, work_items = waits[names.UNFINISHED_TASKS], waits[names.UNFINISHED_WORK_ITEMS]
        elapsed_s = self._elapsed_s()
        self._emit(
            names.SHUTDOWN_PROGRESS,
            f"Shutdown goes on after {elapsed_s:.1f} s, unfinished: {tasks} tasks, {work_items} work items",
            {names.SHUTDOWN_ELAPSED: elapsed_s, **waits},
        )

    def completed(self) -> None:
        """Say how long it took, if it was said that it started."""
        if not self._is_told:
            return
        self._is_told = False
        with self._lock:
            self._durations.setdefault(self._reason, Histogram()).observe(self._clock() - self._began_ns)
        elapsed_s = self._elapsed_s()
        self._emit(
            names.SHUTDOWN_COMPLETED,
            f"Shutdown completed in {elapsed_s:.3f} s",
            {names.SHUTDOWN_ELAPSED: elapsed_s},
        )

    def collect(self) -> Iterable[HistogramReading]:
        """Read how long the shutdowns took that were told of: one at most, unless the process survived it."""
        with self._lock:
            points = [({names.SHUTDOWN_REASON: why}, each.read()) for why, each in self._durations.items()]
        return [HistogramReading(names.SHUTDOWN_DURATION, points)] if points else []

    def _elapsed_s(self) -> float:
        return (self._clock() - self._began_ns) / 1e9

    def _emit(
        self, event: str, body: str, attributes: dict[str, AnyValue], at_unix_ns: int | None = None
    ) -> None:
        now = self._unix_clock()
        get_logger(names.SCOPE_NAME, __version__).emit(
            timestamp=at_unix_ns or now,
            observed_timestamp=now,
            context=Context(),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=body,
            event_name=event,
            attributes={names.SHUTDOWN_REASON: self._reason, **attributes},
        )


def _ask(counts: Iterable[Count]) -> Iterable[int]:
    for count in counts:
        try:
            yield count()
        except Exception:
            _logger.debug("%r failed", count, exc_info=True)
