"""A span that is started once somebody needs it, as of when it should have begun.

For work that mostly tells nothing, in a process with no span of its own around it: there is none that writes
could go to, as those to a `StandIn` do, so that whoever writes has the span made, too.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import Any

from opentelemetry.sdk.trace import Span as ReadWriteSpan
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

from otel_concurrency.signals.forwarding import Forwarding
from otel_concurrency.signals.stand_in import only_looks

forks = 0
"""How many forks this process is away from the first one."""


class LateSpan(Forwarding, Span):
    """The current span of one piece of work; made by whoever asks it for anything.

    Once the work is over, and in a forked child, which has the work but not its end, none is made any more:
    then it is as if the one above were the current one.

    Args:
        parent: The ids of the span above, in another process.
    """

    _made: Span | None = None

    def __init__(self, parent: SpanContext) -> None:
        self._parent = parent
        self._forks = forks
        # Taken away by who makes the span: without a lock, which a fork could leave locked.
        self._is_open = True

    @property
    def _real(self) -> Span:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.make()

    @abstractmethod
    def start(self) -> Span:
        """Start the span, with the true start time; called once, or never."""

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass for a span of the SDK, whose other attributes it has, too: `isinstance` makes none."""
        if self._made is not None:
            return type(self._made)
        return ReadWriteSpan if "_is_open" in vars(self) else NonRecordingSpan

    def __getattr__(self, name: str) -> Any:
        return getattr(self.make(), name)

    def __repr__(self) -> str:
        return f"<LateSpan of {self._made!r}>" if self._made is not None else "<LateSpan, not made>"

    def make(self) -> Span:
        """Return the span, started if it is not; of work that is over, what has the ids of the one above."""
        if self._made is None and self._forks == forks and self._take():
            self._made = self.start()
        # Another thread that comes while it is being started sees the span above, for once.
        return self._made if self._made is not None else NonRecordingSpan(self._parent)

    def close(self) -> Span | None:
        """The work is over: return the span if there is one; there will be none else."""
        self._take()
        return self._made

    def _take(self) -> bool:
        try:
            del self._is_open
        except AttributeError:
            return False
        return True

    def seen_ids(self) -> SpanContext:
        """Return its ids if it is made, else those of the one above."""
        return self._made.get_span_context() if self._made is not None else self._parent

    def get_span_context(self) -> SpanContext:
        """Return its ids; to who only looks, of a span that is not made, those of the one above."""
        if only_looks(sys._getframe(1).f_globals.get("__name__", "")):
            return self.seen_ids()
        return self.make().get_span_context()


def count_fork() -> None:
    """Be in a forked child."""
    global forks
    forks += 1
