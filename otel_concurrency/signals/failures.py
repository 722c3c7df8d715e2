"""Failures as OpenTelemetry hears of them: a counter, a log event, a span event where the span is open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.hooks.failures.failures import Failure, Failures
from otel_concurrency.signals import jobs, names
from otel_concurrency.signals.carriers import extract
from otel_concurrency.signals.readings import Labels, Reading, SumReading

PATIENCE_S = 0.5
"""How long an end of the process waits for a thread that is telling already."""

SPAN_EVENT = "exception"
"""The name that the semantic conventions give it."""

_SEVERITIES = {"main": SeverityNumber.FATAL, "coroutine_never_awaited": SeverityNumber.WARN}


class FailureReports:
    """Tells of failures, and is a source with their number.

    Args:
        failures: Where they are noted.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, failures: Failures, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._failures = failures
        self._clock = clock
        self.begin()

    def __repr__(self) -> str:
        return f"<FailureReports of {self._failures!r}>"

    def begin(self) -> None:
        """Start at nothing: at first, and again in a forked child."""
        self.start_unix_ns = self._clock()
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self._is_awake = False
        self._functions: dict[tuple[str, str], str] = {}

    def wake(self, may_act: bool) -> None:
        """See to it that what is noted is told: here and now, or on a thread.

        Args:
            may_act: Whether this is a place where anything may be done; a finaliser, for one, is none.
        """
        if may_act and self._lock.acquire(blocking=False):
            try:
                self._tell_all()
            finally:
                self._lock.release()
        elif not self._is_awake:
            self._is_awake = True
            if jobs.start(self._tell_soon) is None:  # the interpreter ends; whoever ends it will ask
                self._is_awake = False

    def drain(self) -> None:
        """Tell all that is noted, before this returns."""
        if self._lock.acquire(timeout=PATIENCE_S):
            try:
                self._tell_all()
            finally:
                self._lock.release()

    def collect(self) -> Iterable[Reading]:
        """Read the numbers."""
        points: list[tuple[Labels, int]] = []
        for (kind, error_type), count in self._failures.counts.read().items():
            labels = {names.FAILURE_KIND: kind}
            points.append((labels | {names.ERROR_TYPE: error_type} if error_type else labels, count))
        return [SumReading(names.FAILURES, points)]

    def seen(self) -> dict[tuple[str, str], tuple[int, str]]:
        """Return how many failures there were of each kind and type, and whose the last one was."""
        counts = self._failures.counts.read()
        return {key: (count, self._functions.get(key, "")) for key, count in counts.items()}

    def _tell_soon(self) -> None:
        with self._lock:
            self._is_awake = False
            self._tell_all()

    def _tell_all(self) -> None:
        while (failure := self._failures.take()) is not None:
            try:
                self._tell(failure)
            except Exception:
                self._failures.lost += 1

    def _tell(self, failure: Failure) -> None:
        self._functions[failure.kind, failure.error_type] = failure.coroutine or failure.place.function
        context = _context_of(failure)
        attributes = _attributes(failure)
        span = trace.get_current_span(context)
        if span.is_recording() and failure.error_type:
            span.add_event(SPAN_EVENT, attributes, failure.at_unix_ns)
        severity = _SEVERITIES.get(failure.kind, SeverityNumber.ERROR)
        get_logger(names.SCOPE_NAME, __version__).emit(
            timestamp=failure.at_unix_ns,
            observed_timestamp=self._clock(),
            context=context,
            severity_number=severity,
            severity_text=severity.name,
            body=failure.message or failure.error_type,
            event_name=names.FAILURE_EVENTS[failure.kind],
            attributes=attributes,
        )


def _context_of(failure: Failure) -> Context:
    if failure.carrier is not None:
        return extract(dict(failure.carrier))
    return failure.origin if isinstance(failure.origin, Context) else Context()


def _attributes(failure: Failure) -> dict[str, AnyValue]:
    told: tuple[tuple[str, AnyValue], ...] = (
        (names.FAILURE_KIND, failure.kind),
        (names.ERROR_TYPE, failure.error_type),
        (names.EXCEPTION_TYPE, failure.error_type),
        (names.EXCEPTION_MESSAGE, failure.message if failure.error_type else ""),
        (names.EXCEPTION_STACKTRACE, failure.stack),
        (names.CODE_FUNCTION_NAME, failure.place.function),
        (names.CODE_FILE_PATH, failure.place.file),
        (names.CODE_LINE_NUMBER, failure.place.line),
        (names.TASK_NAME, failure.task),
        (names.COROUTINE_NAME, failure.coroutine),
        (names.EXECUTOR_NAME, failure.pool),
        (names.THREAD_ID, failure.thread_ident),
        (names.THREAD_NAME, failure.thread_name),
        (names.PROCESS_PID, failure.pid),
        (names.SUPPRESSED, failure.left_out),
    )
    return {key: value for key, value in told if value}
