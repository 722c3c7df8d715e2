"""Stalls of event loops as OpenTelemetry hears of them: a counter, log events and a span event.

All is said by the watching thread, while the loop is held or after; the loop itself never waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber, get_logger
from opentelemetry.context import Context
from opentelemetry.util.types import AnyValue

from otel_concurrency._version import __version__
from otel_concurrency.hooks.loops.stalls import Stall
from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.probes.stall_cause import CPU_STARVED, SPIN, UNKNOWN
from otel_concurrency.probes.tasks import OTHER
from otel_concurrency.signals import names
from otel_concurrency.signals.loop_labels import loop_labels
from otel_concurrency.signals.open_requests import OpenRequests
from otel_concurrency.signals.readings import HistogramReading, Labels, Reading, SumReading
from otel_concurrency.signals.span_events import SpanEvent

INTERVAL_NS = 10_000_000_000
"""Log events of one kind about one function come at most this often."""

MAX_FUNCTIONS = 50
"""Functions that the counter tells apart; further ones count as `_other`."""

SETTLED_NS = 5_000_000_000
"""A stall that takes longer is counted before it is over: it may never be."""

SETTLED_LOOKS = 3
"""Looks after which a cause is told while the stall is still on: one or two may meet an exception. Who has no
CPU is given `SETTLED_NS`, what else is the matter shows with one; and so is what cannot be told yet."""

_UNSETTLED = (CPU_STARVED, UNKNOWN)

TOLD_FRAMES = 3
"""Frames in a span event; the log events have all that were kept."""

_Attributes = dict[str, AnyValue]


class StallReports:
    """Tells of stalls, and is a source with their numbers.

    Args:
        requests: Those that are open: told of what they wait for.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(
        self, *, requests: OpenRequests | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._clock = clock
        self._requests = requests
        self.begin()

    def __repr__(self) -> str:
        return f"<StallReports [{sum(self._counts.values())} stalls]>"

    def begin(self) -> None:
        """Start at nothing: at first, and again in a forked child."""
        self.start_unix_ns = self._clock()
        self._lock = threading.Lock()
        self._functions: set[str] = set()
        self._counts: dict[tuple[int | None, str, str, str], int] = {}
        self._durations: dict[tuple[int | None, str, str], Histogram] = {}
        self._last: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._left_out: dict[int, int | None] = {}  # of those that are on: like ones before; None: itself
        self._started: set[int] = set()  # of those that are on
        self._counted: set[int] = set()  # the same
        self._span_events: dict[int, SpanEvent] = {}

    def stall_seen(self, stall: Stall) -> None:
        """Tell of a stall that is on, in the trace of who holds the loop."""
        self._place(stall)
        self._tell_requests(stall)
        if stall.cause == SPIN:
            self._tell_start(stall)

    def stall_goes_on(self, stall: Stall) -> None:
        """Bring the span event up to date, and tell of the stall when its cause has settled."""
        self._tell_requests(stall)
        self._bring_up_to_date(stall)

    def _bring_up_to_date(self, stall: Stall) -> None:
        if stall.looks >= SETTLED_LOOKS and (
            stall.cause not in _UNSETTLED or stall.duration_ns >= SETTLED_NS
        ):
            self._tell_start(stall)
        if not stall.is_placed:
            self._place(stall)
        event = self._span_events.get(id(stall))
        if event is not None:
            event.amend(_attributes(stall, TOLD_FRAMES))
        if stall.duration_ns >= SETTLED_NS:
            self._count(stall)

    def stall_ended(self, stall: Stall) -> None:
        """Count it, and tell how long it took."""
        if stall.looks:
            self._tell_start(stall)
        self._bring_up_to_date(stall)
        self._tell_requests(stall, is_over=True)
        self._count(stall)
        self._counted.discard(id(stall))
        self._started.discard(id(stall))
        self._span_events.pop(id(stall), None)
        with self._lock:
            self._durations.setdefault((*_loop(stall), stall.cause), Histogram()).observe(stall.duration_ns)
        took = f"{stall.duration_ns / 1e9:.3f} s"
        self._emit(names.STALL_ENDED, stall, f"{_where(stall)} stalled for {took}: {_why(stall)}")
        self._left_out.pop(id(stall), None)

    def collect(self) -> Iterable[Reading]:
        """Read the numbers."""
        with self._lock:
            counts = list(self._counts.items())
            durations = [(key, each.read()) for key, each in self._durations.items()]
        return [
            SumReading(
                names.EVENTLOOP_STALLS,
                [({**_labels(*key[:3]), names.CODE_FUNCTION_NAME: key[3]}, count) for key, count in counts],
            ),
            HistogramReading(
                names.EVENTLOOP_STALL_DURATION, [(_labels(*key), state) for key, state in durations]
            ),
        ]

    def _tell_requests(self, stall: Stall, *, is_over: bool = False) -> None:
        if self._requests is not None and stall.cause != SPIN:  # who spins lets others have their turn
            self._requests.tell(stall, is_over=is_over)

    def _place(self, stall: Stall) -> None:
        """Add the event to the span of whoever holds the loop, if there is one by now."""
        span = trace.get_current_span(stall.origin) if isinstance(stall.origin, Context) else None
        if span is not None and span.is_recording():
            stall.is_placed = True
            self._span_events[id(stall)] = SpanEvent(
                span, names.STALL_SPAN_EVENT, _attributes(stall, TOLD_FRAMES), stall.began_unix_ns
            )

    def _tell_start(self, stall: Stall) -> None:
        if id(stall) not in self._started:
            self._started.add(id(stall))
            self._emit(names.STALL_STARTED, stall, f"{_where(stall)} stalls: {_why(stall)}")

    def _count(self, stall: Stall) -> None:
        if id(stall) not in self._counted:
            self._counted.add(id(stall))
            with self._lock:
                key = (*_loop(stall), stall.cause, self._bounded(stall.function))
                self._counts[key] = self._counts.get(key, 0) + 1

    def _bounded(self, function: str) -> str:
        function = function or names.UNKNOWN_FUNCTION
        if function not in self._functions:
            if len(self._functions) >= MAX_FUNCTIONS:
                return OTHER
            self._functions.add(function)
        return function

    def _admit(self, stall: Stall, now: int) -> int | None:
        """Return how many like stalls were left out before this one; None: this one is left out, whole."""
        if id(stall) in self._left_out:
            return self._left_out[id(stall)]
        # With the place: under a web server the function is the same for all endpoints.
        key = (stall.function, stall.file, stall.line)
        last_ns, before = self._last.get(key, (0, 0))
        is_told = not last_ns or now - last_ns >= INTERVAL_NS
        if len(self._last) >= MAX_FUNCTIONS and key not in self._last:
            self._last.clear()
        self._last[key] = (now, 0) if is_told else (last_ns, before + 1)
        self._left_out[id(stall)] = before if is_told else None
        return self._left_out[id(stall)]

    def _emit(self, event: str, stall: Stall, body: str) -> None:
        now = self._clock()
        suppressed = self._admit(stall, now)
        if suppressed is None:
            return
        attributes = _attributes(stall)
        if event == names.STALL_STARTED:
            attributes.pop(names.STALL_ELAPSED)
        if suppressed:
            attributes[names.SUPPRESSED] = suppressed
        get_logger(names.SCOPE_NAME, __version__).emit(
            timestamp=stall.began_unix_ns + (stall.duration_ns if event == names.STALL_ENDED else 0),
            observed_timestamp=now,
            context=stall.origin if isinstance(stall.origin, Context) else Context(),
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            body=body,
            event_name=event,
            attributes=attributes,
        )


def _loop(stall: Stall) -> tuple[int | None, str]:
    return stall.loop_id, stall.loop_type


def _labels(loop_id: int | None, loop_type: str, cause: str) -> Labels:
    return {**loop_labels(loop_id, loop_type), names.STALL_CAUSE: cause}


def _attributes(stall: Stall, frames: int | None = None) -> _Attributes:
    attributes: _Attributes = {
        names.STALL_CAUSE: stall.cause,
        names.STALL_ELAPSED: stall.duration_ns / 1e9,
        **loop_labels(*_loop(stall)),
        names.THREAD_ID: stall.thread_ident,
    }
    told: tuple[tuple[str, AnyValue], ...] = (
        (names.CODE_FUNCTION_NAME, stall.function),
        (names.TASK_NAME, stall.task_name),
        (names.STALL_CALL, stall.call),
        (names.CODE_FILE_PATH, stall.file),
        (names.CODE_LINE_NUMBER, stall.line),
        (names.CODE_STACKTRACE, "\n".join(stall.frames[:frames])),
    )
    attributes.update((key, value) for key, value in told if value)
    return attributes


def _where(stall: Stall) -> str:
    return f"Event loop {'' if stall.loop_id is None else stall.loop_id}".rstrip()


def _why(stall: Stall) -> str:
    who = stall.function or "nobody saw which function"
    what = f" in {stall.call}" if stall.call else ""
    return f"{stall.cause}, {who}{what}"
