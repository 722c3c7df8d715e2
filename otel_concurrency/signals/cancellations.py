"""Cancellation as OpenTelemetry hears of it: an outcome of spans, and a count of timeouts.

A span that ends because its task was cancelled has no error, and until here nothing at all that says so.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Span, SpanProcessor

from otel_concurrency.hooks.tasks.cancellations import UNKNOWN, Cancellation
from otel_concurrency.probes.event_counts import EventCounts
from otel_concurrency.probes.pure import coroutine_name
from otel_concurrency.probes.tasks import OTHER
from otel_concurrency.signals import names
from otel_concurrency.signals.readings import Reading, SumReading

_why: Callable[[Any], Cancellation] | None = None
_DEPTH = 8  # frames between a span's end and the `with` that it is the end of


def explain_by(why: Callable[[Any], Cancellation] | None) -> None:
    """Let `reasons` know what tells the reason of a task's cancellation; None: nobody does."""
    global _why
    _why = why


def reasons(task: Any) -> dict[str, str]:
    """Return why a task was cancelled, as attributes of its span; empty where nobody knows it."""
    return told_of(_why(task)) if _why is not None and task is not None else {}


def told_of(cancellation: Cancellation) -> dict[str, str]:
    """Return a cancellation as attributes; what is not known is left out."""
    told = {names.CANCELLATION_REASON: cancellation.reason, names.CANCELLED_BY: cancellation.by}
    return {key: value for key, value in told.items() if value}


class SpanEndings(SpanProcessor):
    """Puts the reason into spans that a cancellation ends, and tells which an exception ends.

    Args:
        why: Tells the reason of a task's cancellation.
        why_on_trio: Tells what a cancellation of trio is about; None for any other exception.
        left: Called with a span, and with the exception that is there when it ends.
    """

    def __init__(
        self,
        why: Callable[[Any], Cancellation],
        why_on_trio: Callable[[BaseException], Cancellation | None],
        left: Callable[[Span, BaseException], object],
    ) -> None:
        self._why = why
        self._why_on_trio = why_on_trio
        self._left = left
        self.is_on = True

    def _on_ending(self, span: Span) -> None:
        error = sys.exc_info()[1]
        if error is None or not self.is_on:
            return
        try:
            if not _has_left(error):
                return
            if isinstance(error, asyncio.CancelledError):
                task = None if asyncio._get_running_loop() is None else asyncio.current_task()
                self._tell(span, Cancellation(UNKNOWN, "") if task is None else self._why(task))
            elif (cancellation := self._why_on_trio(error)) is not None:
                self._tell(span, cancellation)
            else:
                self._left(span, error)
        except Exception:  # an SDK that is built differently
            self.is_on = False

    def _tell(self, span: Span, cancellation: Cancellation) -> None:
        attributes = span._attributes
        if not isinstance(attributes, BoundedAttributes):
            return
        target: Any = attributes._dict  # it takes nothing new any more, and nobody else has the span yet
        for key, value in told_of(cancellation).items():
            if attributes.maxlen is None or len(target) < attributes.maxlen:
                target.setdefault(key, value)


class Timeouts:
    """A source with the timeouts that have expired, by the coroutine function of the task.

    Args:
        max_coroutines: Functions told apart.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, *, max_coroutines: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._counts = EventCounts(max_names=max_coroutines)
        self._clock = clock
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<Timeouts [{self._counts!r}]>"

    def begin(self) -> None:
        """Start at nothing in a forked child."""
        self._counts.reset()
        self.start_unix_ns = self._clock()

    def expired(self, task: asyncio.Task[Any]) -> None:
        """Count one, of a task of asyncio."""
        self.expired_in(task.get_coro())

    def expired_in(self, coroutine: Any) -> None:
        """Count one, of the task of a coroutine."""
        self._counts.add(coroutine_name(coroutine) or OTHER)

    def collect(self) -> Iterable[Reading]:
        """Read the numbers."""
        counts = self._counts.read().items()
        return [
            SumReading(
                names.TIMEOUTS_EXPIRED,
                [({names.CODE_FUNCTION_NAME: function}, count) for (function,), count in counts],
            )
        ]


def _has_left(error: BaseException) -> bool:
    """Whether it is on its way out of the `with` of the span, and not handled by whoever ends that."""
    frame: Any = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return False
        if frame.f_code.co_name == "__exit__":
            return any(value is error for value in frame.f_locals.values())
        frame = frame.f_back
    return False
