"""Tasks that outlive the request that created them by far: each goes on in a trace of its own.

Else a worker that the first request has started would put everything that it does until the program's end
into that request's trace. Nothing reaches into the task's context: what is its current span there, the
stand-in, has new ids from some moment on. That is found out when somebody takes them, or at the task's end.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan

from otel_concurrency.signals import names
from otel_concurrency.signals.local_roots import root_ended_unix_ns
from otel_concurrency.signals.promised_ids import PromisingTracer
from otel_concurrency.signals.stand_in import StandIn, beyond, put
from otel_concurrency.signals.task_attributes import running_task, task_attributes

MAX_TRACE_NS = 3_600_000_000_000
"""A trace that such a task goes on in is followed by a further one after this time."""

DETACHED = "detached"


class ContinuedTasks:
    """Lets tasks go on in traces of their own.

    Args:
        after_ns: How long a task may outlive its local root; 0: as long as it wants.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, *, after_ns: int, clock: Callable[[], int]) -> None:
        self._after_ns = after_ns
        self._clock = clock
        self._claims: dict[int, object] = {}  # by the ids of stand-ins that are about to go on

    def __repr__(self) -> str:
        return f"<ContinuedTasks after {self._after_ns / 1e9:g} s>"

    def go_on(self, stand_in: StandIn, tracer: PromisingTracer) -> None:
        """Let a task go on in a trace of its own if it is time for that.

        Args:
            stand_in: Of a task that has not ended.
            tracer: Makes the spans.
        """
        now_ns = self._clock()
        if not self._is_due(stand_in, now_ns):
            if stand_in._continued is None:
                put(stand_in, "_asked_unix_ns", now_ns)
            return
        due = [stand_in]
        while True:
            around = beyond(due[-1]._around)
            if type(around) is not StandIn or not around.is_open or not self._is_due(around, now_ns):
                break
            due.append(around)
        for each in reversed(due):  # those around it first: it belongs to their traces
            claim = object()
            # Nobody waits for anybody: who asks meanwhile, in a processor of spans or in another thread that
            # holds a lock of its own, gets the ids as they are.
            if self._claims.setdefault(id(each), claim) is not claim:
                continue
            try:
                if self._is_due(each, now_ns) and not self._joined_late(each):
                    _continue(each, tracer, now_ns)
            finally:
                del self._claims[id(each)]

    def _joined_late(self, stand_in: StandIn) -> bool:
        """Whether a task was created by one that was overdue: all of it belongs where that one goes on."""
        around = beyond(stand_in._around)
        if type(around) is not StandIn or around._continued is None or stand_in._settled is not False:
            return False
        ended_ns = root_ended_unix_ns(stand_in._real)
        if ended_ns is None or stand_in._start_unix_ns < ended_ns + self._after_ns:
            return False
        put(stand_in, "_real", around._continued)
        return True

    def _is_due(self, stand_in: StandIn, now_ns: int) -> bool:
        if stand_in._continued is not None:
            return now_ns - stand_in._asked_unix_ns >= MAX_TRACE_NS
        if not self._after_ns or stand_in._real.is_recording():
            return False
        ended_ns = root_ended_unix_ns(stand_in._real)
        return ended_ns is not None and now_ns - ended_ns >= self._after_ns


def context_of(stand_in: StandIn, created_in: Context) -> Context:
    """Return the context with the parent of a task's span, in the trace in which its ids were promised.

    Args:
        stand_in: The task's.
        created_in: The context that was current where the task was created.
    """
    around = stand_in._around
    if type(around) is not StandIn or around._continued is None:
        return created_in
    enclosing = stand_in._real.get_span_context()  # in the same trace at any rate
    above = around.first_ids()
    above = above if above is not None and above.trace_id == enclosing.trace_id else enclosing
    return trace.set_span_in_context(NonRecordingSpan(above), created_in)


def _continue(stand_in: StandIn, tracer: PromisingTracer, now_ns: int) -> None:
    created_in = stand_in._created_in
    stand_in.settle()
    ids = stand_in.first_ids()
    if created_in is None or ids is None:
        return
    last = stand_in._continued
    began_ns = now_ns
    if last is None:
        ended_ns = root_ended_unix_ns(stand_in._real) or now_ns
        began_ns = max(stand_in._start_unix_ns, min(now_ns, max(ended_ns, stand_in._asked_unix_ns)))
    around = beyond(stand_in._around)
    above: trace.Span = trace.INVALID_SPAN
    if type(around) is StandIn and around.is_open and around._continued is not None:
        above = around._continued
    name = f"{names.TASK_SPAN} {stand_in._function}"
    new = tracer.start(
        None,
        name,
        trace.set_span_in_context(above, created_in),
        began_ns,
        {},
        [Link(ids if last is None else last.get_span_context())],
    )
    new_ids = new.get_span_context()
    current: object = trace.get_current_span()  # maybe that of a thread, or of a task that it has created
    attributes = task_attributes(stand_in, DETACHED, running_task() if current is stand_in else None)
    if last is None:
        context = context_of(stand_in, created_in)
        last = tracer.start(ids.span_id, name, context, stand_in._start_unix_ns, attributes)
    if last.is_recording():  # the application may have ended it
        last.set_attributes(attributes)
        if new_ids.trace_flags.sampled:
            last.add_link(new_ids)
    put(stand_in, "_asked_unix_ns", began_ns)
    put(stand_in, "_real", new)
    put(stand_in, "_continued", new)
    if last.is_recording():
        last.end(began_ns)
