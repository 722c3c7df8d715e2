"""The current span inside a task, as long as nobody knows whether the task will be worth a span.

Whoever writes to it writes to the recording span around it, as without us. Only its id is its own: once
somebody takes that, for a child span, a header or a log record, there will be a span with this id.
"""

from __future__ import annotations

import sys
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from otel_concurrency.probes import account
from otel_concurrency.probes.stand_in import PureStandInState, stand_in_state
from otel_concurrency.signals.forwarding import Forwarding

if TYPE_CHECKING:
    _State = PureStandInState
else:
    _State = stand_in_state()

put = object.__setattr__
"""Sets what is its own; anything else that is set on a stand-in is the application's, and goes to `_real`."""

_OWN = frozenset(
    {"_maker", "_real", "_around", "_created_in", "_code", "_function", "_continued"}
    | {"_start_unix_ns", "_asked_unix_ns", account.ATTRIBUTE}
)
_LOOKERS = "opentelemetry.sdk.metrics."
"""Who asks for the ids at each measurement, to keep few of them or none: the SDK's exemplars."""


class Maker(Protocol):
    """What makes the span in the end."""

    is_over: bool
    """Whether it makes no spans any more, so that nothing can be promised."""

    def promise(self, enclosing: SpanContext, span_id: int = 0) -> SpanContext:
        """Return the ids of a span to come, new ones or in full those whose second half is known."""
        ...

    def go_on(self, stand_in: StandIn) -> None:
        """Let a task that outlives its local root by far go on in a trace of its own."""
        ...

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
        """Make the span of a task that has ended, if it tells something."""
        ...


class StandIn(_State, Forwarding):
    """The current span of one task. To whoever asks it is a span of the class of the one around.

    Made by its maker, or by a probe in C, which fill the attributes; a class of the API or the SDK as base
    would give each a dict. What became of its ids is `_settled`: False while nobody has asked; the ids, once
    somebody has, or the span's id alone, once it is made; None when the task has ended without a span.

    Attributes:
        _maker: Makes the span.
        _real: The recording span that it writes to.
        _around: What was the current span where the task was created.
        _created_in: The OpenTelemetry context there; None after the end.
        _code: The code of the coroutine, None if it has none.
        _function: `module.qualname` of the coroutine function.
        _start_unix_ns: When the task was created.
        _continued: The span in which the task goes on in a trace of its own, as `_real` then is; or None.
        _asked_unix_ns: When the ids were last taken after the end of `_real`; of a task that goes on, when
            it began to.
    """

    __slots__ = ("__weakref__",)

    _maker: Maker
    _around: Span | StandIn
    _created_in: Context | None
    _code: CodeType | None
    _continued: Span | None

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass for a span of the SDK, whose other attributes it has, too."""
        return type(self._real)

    def __repr__(self) -> str:
        return f"<StandIn {self._function} in {self._real!r}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            put(self, name, value)
        else:
            setattr(self._real, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._real, name)

    @property
    def is_open(self) -> bool:
        """Whether its task has not ended."""
        return self._created_in is not None

    @property
    def context(self) -> SpanContext:
        """The same as `get_span_context()`, as the SDK's spans have it."""
        return self._ids(sys._getframe(1).f_globals.get("__name__", ""))

    @property
    def parent(self) -> SpanContext | None:
        """What it hangs under, once it has ids of its own; before, the parent of the span around."""
        if self._settled and self._continued is None:
            return self._around.get_span_context()
        return getattr(self._real, "parent", None)

    def get_span_context(self) -> SpanContext:
        """Return ids that a span has, or will have from now on."""
        return self._ids(sys._getframe(1).f_globals.get("__name__", ""))

    def _ids(self, asker: str) -> SpanContext:
        if only_looks(asker):
            return seen_ids(self)
        if self._created_in is not None and (self._continued is not None or not self._real.is_recording()):
            self._maker.go_on(self)
        self.settle()
        if self._continued is not None:
            return self._continued.get_span_context()
        ids = self.first_ids()
        if ids is None:
            around = beyond(self._around)
            put(self, "_around", around)
            return around.get_span_context()
        return ids

    def settle(self) -> None:
        """Promise a span, unless that is settled already."""
        if self._settled is False:
            self._settle(None if self._maker.is_over else self._maker.promise(self._real.get_span_context()))

    def first_ids(self) -> SpanContext | None:
        """Return what was promised first, in the trace of the span around; None if nothing was."""
        ids: SpanContext | int | Literal[False] | None = self._settled
        if ids is None or ids is False:
            return None
        if isinstance(ids, int):
            return self._maker.promise(self._real.get_span_context(), ids)
        return ids

    def task_ended(
        self,
        outcome: str,
        duration_ns: int,
        error: BaseException | None = None,
        task: object = None,
        steps: int = -1,
        busy_ns: int = -1,
        start_delay_ns: int = -1,
    ) -> None:
        """Let the maker decide. Not to be called by what a garbage collection calls.

        Args:
            outcome: `finished`, `failed`, `cancelled` or `destroyed`.
            duration_ns: Creation to end.
            error: Why it failed.
            task: If it is still there.
            steps: How many steps it took; -1, as below: nobody has seen.
            busy_ns: Time inside its steps.
            start_delay_ns: Creation to first step.
        """
        self._maker.make(self, outcome, duration_ns, error, task, steps, busy_ns, start_delay_ns)

    def take_made(self, new_id: int | None = None) -> SpanContext | int | None:
        """End it: return the ids if somebody has them, else `new_id`; if that is None, nobody ever will."""
        ids: SpanContext | int | None = self._settle(new_id)
        put(self, "_created_in", None)
        if ids is None:
            # A chain of tasks that create each other stays short.
            put(self, "_around", beyond(self._around))
        return ids

    def forget(self) -> None:
        """End it for a task that there never was."""
        self.take_made()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._real.__exit__(exc_type, exc_val, exc_tb)


Span.register(StandIn)


def only_looks(asker: str) -> bool:
    """Whether who asks for ids, by the name of its module, mostly keeps none of them."""
    return asker.startswith(_LOOKERS)


def seen_ids(span: Span | StandIn) -> SpanContext:
    """Return the ids of the nearest span that there is or will be, without making one of it."""
    while type(span) is StandIn:
        if span._continued is not None:
            return span._continued.get_span_context()
        ids = span.first_ids()
        if ids is not None:
            return ids
        span = span._around
    look = getattr(type(span), "seen_ids", None)  # a `LateSpan` has it
    found: SpanContext = span.get_span_context() if look is None else look(span)
    return found


def beyond(span: Span | StandIn) -> Span | StandIn:
    """Return the nearest span that is no stand-in of a task that ended without one."""
    while type(span) is StandIn and span._settled is None:
        span = span._around
    return span
