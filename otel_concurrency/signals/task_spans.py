"""Spans of tasks that tell something: of the slow, the failed, the cancelled, and those with a child span.

A task that is created inside a recording span gets a `StandIn`. That costs no call of OpenTelemetry; what
becomes of it is decided when the task ends.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from types import CodeType
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, TracerProvider

from otel_concurrency.probes import account
from otel_concurrency.probes.pure import coroutine_name, type_name
from otel_concurrency.probes.tasks import SpanPlan
from otel_concurrency.signals import cancellations, names
from otel_concurrency.signals.continued_tasks import ContinuedTasks, context_of
from otel_concurrency.signals.current_context import SPAN_KEY, get_current
from otel_concurrency.signals.current_context import put as put_into
from otel_concurrency.signals.promised_ids import PromisingTracer, current_provider, processor_of
from otel_concurrency.signals.stand_in import StandIn, put
from otel_concurrency.signals.task_attributes import running_task, task_attributes, tell_error

NS = 1_000_000_000
MAX_FUNCTIONS = 1_000
"""Coroutine functions whose names are remembered; when there are more, all begin anew."""

_logger = logging.getLogger(__name__)


class TaskSpans:
    """Gives tasks their stand-ins, and makes the spans of those that turn out notable.

    Args:
        threshold_ns: From when on a task is slow; 0: each task gets a span.
        include: Globs of `module.qualname`: of these coroutine functions only.
        exclude: Globs of those that get none.
        detach_after_ns: How long a task may outlive its local root before it goes on in a trace of its own;
            0: as long as it wants.
        tracer_provider: Whose spans they are; by default the global one's.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(
        self,
        *,
        threshold_ns: int = 100_000_000,
        include: Iterable[str] = ("*",),
        exclude: Iterable[str] = (),
        detach_after_ns: int = 30_000_000_000,
        tracer_provider: TracerProvider | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.is_over = False
        self._threshold_ns = threshold_ns
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._provider = tracer_provider
        self._clock = clock
        self._continued = ContinuedTasks(after_ns=detach_after_ns, clock=clock)
        self._functions: dict[CodeType | None, str] = {}
        self._tracer: PromisingTracer | None = None
        self._processor: object = None
        self._refused: weakref.ref[Any] | None = None  # the provider that we can do nothing with
        self._sampled: Callable[[], Any] = lambda: None  # the span that was asked last

    def __repr__(self) -> str:
        return f"<TaskSpans [{'over' if self.is_over else 'on'}] from {self._threshold_ns / NS:g} s>"

    def begin(self, coroutine: Any) -> tuple[StandIn, Context] | None:
        """Return a stand-in for the task that is about to be created, and the context with it.

        None where there will be no span: outside of a recording, sampled span, for what the globs leave out.
        Called for each task, so in one piece.
        """
        try:
            current = get_current()
            around: Any = current.get(SPAN_KEY)
            if around is None or self.is_over:
                return None
            real = around
            if type(around) is StandIn:
                real = around._real
                if around._created_in is None and not real.is_recording():
                    return None
            elif around is not self._sampled():
                if not self._is_ours(around):
                    return None
                self._sampled = weakref.ref(around)
            elif not around.is_recording():
                return None
            code = getattr(coroutine, "cr_code", None)
            function = self._functions.get(code)
            if not function:
                if function is not None:
                    return None
                function = self._name(code, coroutine)
                if not function:
                    return None
            stand_in = StandIn()
            put(stand_in, "_maker", self)
            put(stand_in, "_real", real)
            put(stand_in, "_around", around)
            put(stand_in, "_created_in", current)
            put(stand_in, "_code", code)
            put(stand_in, "_function", function)
            put(stand_in, account.ATTRIBUTE, getattr(around, account.ATTRIBUTE, None))
            put(stand_in, "_start_unix_ns", self._clock())
            context = Context(current)
            put_into(context, SPAN_KEY, stand_in)
            return stand_in, context
        except Exception:
            self._give_up()
            return None

    def plan(self) -> SpanPlan:
        """Return what `begin` does with what it has accepted once."""
        return SpanPlan(self, SPAN_KEY, StandIn, Context, self._threshold_ns)

    def promise(self, enclosing: SpanContext, span_id: int = 0) -> SpanContext:
        """Return the ids of a span to come, in the trace of another one."""
        if self._tracer is None:
            raise RuntimeError("nothing was begun")
        return self._tracer.promise(enclosing, span_id)

    def go_on(self, stand_in: StandIn) -> None:
        """Let a task that outlives its local root by far go on in a trace of its own."""
        if self._tracer is None or self.is_over:
            return
        try:
            self._continued.go_on(stand_in, self._tracer)
        except Exception:
            self._give_up()

    def make(
        self,
        stand_in: StandIn,
        outcome: str,
        duration_ns: int,
        error: BaseException | None,
        task: object,
        steps: int,
        busy_ns: int,
        start_delay_ns: int,
    ) -> None:
        """Make the span of a task that has ended, if it tells something; what fails here, stays here."""
        try:
            tracer, created_in, new_id = self._tracer, stand_in._created_in, None
            if tracer is not None and created_in is not None and not self.is_over:
                if not stand_in._real.is_recording():
                    self._continued.go_on(stand_in, tracer)
                if duration_ns >= self._threshold_ns or outcome in ("failed", "cancelled"):
                    new_id = tracer.new_id()
            promised = stand_in.take_made(new_id)
            if promised is None or created_in is None or tracer is None or self.is_over:
                return
            if task is None and outcome != "destroyed":
                task = running_task()  # inside its last step
            attributes = task_attributes(stand_in, outcome, task)
            if steps >= 0:
                attributes[names.TASK_SPAN_STEPS] = steps
                attributes[names.TASK_SPAN_BUSY_TIME] = busy_ns / NS
                if start_delay_ns >= 0:
                    attributes[names.TASK_SPAN_START_DELAY] = start_delay_ns / NS
            if outcome == "cancelled":
                attributes.update(cancellations.reasons(task))
            if error is not None:
                attributes[names.ERROR_TYPE] = type_name(type(error))
            start_unix_ns = stand_in._start_unix_ns
            span = stand_in._continued
            if span is None:
                span = tracer.start(
                    promised if isinstance(promised, int) else promised.span_id,
                    f"{names.TASK_SPAN} {stand_in._function}",
                    context_of(stand_in, created_in),
                    start_unix_ns,
                    attributes,
                )
            elif span.is_recording():
                span.set_attributes(attributes)
            else:
                return  # the application has ended it
            if error is not None:
                tell_error(span, error)
            end_unix_ns = self._clock()
            span.end(end_unix_ns if end_unix_ns > start_unix_ns else start_unix_ns)
        except Exception:
            self._give_up()

    def close(self) -> None:
        """Begin no more; promise nothing that is not promised yet."""
        self.is_over = True

    def _is_ours(self, span: Any) -> bool:
        """Whether it is recorded, sampled, and goes where our tracer's spans go."""
        if not isinstance(span, Span) or not span.is_recording():
            return False
        if not span.get_span_context().trace_flags.sampled:
            return False
        processor = processor_of(span)
        if processor is None:
            return False
        if processor is not self._processor:
            self._find_tracer()
        return processor is self._processor

    def _find_tracer(self) -> None:
        provider = self._provider or current_provider()
        if provider is None or (self._refused is not None and self._refused() is provider):
            return
        try:
            self._tracer = PromisingTracer(provider)
            self._processor = self._tracer.span_processor
        except TypeError:
            self._refused = weakref.ref(provider)
            _logger.debug("Tasks get no spans of their own", exc_info=True)

    def _name(self, code: CodeType | None, coroutine: Any) -> str:
        """Return the name of a coroutine function; empty if it shall have no spans."""
        function = coroutine_name(coroutine)
        is_wanted = any(fnmatchcase(function, glob) for glob in self._include) and not any(
            fnmatchcase(function, glob) for glob in self._exclude
        )
        function = function if is_wanted else ""
        if code is not None:
            if len(self._functions) >= MAX_FUNCTIONS:
                self._functions.clear()
            self._functions[code] = function
        return function

    def _give_up(self) -> None:
        if not self.is_over:
            self.is_over = True
            _logger.exception("Spans of tasks failed and are switched off; the program goes on without them")
