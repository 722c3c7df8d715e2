"""Log events about work items that failed with nobody looking."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context, get_current
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.hooks.futures import UnseenFailure
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import Reading

INTERVAL_NS = 10_000_000_000
"""An event of one pool and exception type comes at most this often."""

MAX_KINDS = 200
"""Pools and types that are told apart; when there are more, all begin anew."""


class UnseenFailureEvents:
    """A source without metrics: when it is read, it emits what was noticed since, each in its own trace.

    Args:
        failures: Filled by whoever notices, emptied here.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, failures: deque[UnseenFailure], *, clock: Callable[[], int] = time.time_ns) -> None:
        self.start_unix_ns = clock()
        self._clock = clock
        self._failures = failures
        self._told: dict[tuple[str, str], tuple[int, int]] = {}

    def begin(self) -> None:
        """Forget what there was: in a forked child it is the parent's to tell."""
        self._failures.clear()
        self._told.clear()

    def collect(self) -> Iterable[Reading]:
        """Emit, and return nothing."""
        while True:
            try:
                failure = self._failures.popleft()
            except IndexError:  # also where two read at once
                return ()
            key = (failure.pool, failure.error_type)
            last_ns, suppressed = self._told.get(key, (0, 0))
            if last_ns and failure.at_unix_ns - last_ns < INTERVAL_NS:
                self._told[key] = (last_ns, suppressed + 1)
                continue
            if len(self._told) >= MAX_KINDS:
                self._told.clear()
            self._told[key] = (failure.at_unix_ns, 0)
            self._emit(failure, suppressed)

    def _emit(self, failure: UnseenFailure, suppressed: int) -> None:
        attributes: dict[str, AnyValue] = {
            names.EXECUTOR_NAME: failure.pool,
            names.ERROR_TYPE: failure.error_type,
        }
        if failure.line:
            attributes[names.CODE_FUNCTION_NAME] = failure.function
            attributes[names.CODE_FILE_PATH] = failure.file
            attributes[names.CODE_LINE_NUMBER] = failure.line
        if suppressed:
            attributes[names.SUPPRESSED] = suppressed
        get_logger(names.SCOPE_NAME, __version__).emit(
            timestamp=failure.at_unix_ns,
            observed_timestamp=self._clock(),
            context=Context() if failure.context is None else failure.context.copy().run(get_current),
            severity_number=SeverityNumber.ERROR,
            severity_text="ERROR",
            body=f"A work item of {failure.pool} failed with {failure.error_type}, and nobody looked",
            event_name=names.FUTURE_UNRETRIEVED,
            attributes=attributes,
        )
