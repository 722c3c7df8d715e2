"""What travels beside a work item of a process pool, and what takes note of it on its way over and back.

The item travels as its pool packs it, with one more thing beside it: where it comes from, and when it was
handed in. The worker says what that means to an observer, runs the function as ever, with no frame of ours
beneath it, and sends two durations back beside the result. A worker without us ignores all of this.

Times are the monotonic clock of both processes: one for a whole machine on Linux, macOS and Windows. It says
nothing between machines; no pool of the standard library reaches that far.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import Any, NamedTuple, Protocol

KEY = "_otel_concurrency"
"""The attribute that we add to what travels."""

Carrier = dict[str, str]
Parcel = tuple[Carrier, int, str]
"""Beside an item: its carrier, when it was handed in, and the name of its pool. Built-in types only."""

Timing = tuple[int, int]
"""Beside a result: how long the item was queued, and how long it ran; ns."""

Late = Callable[[], object]
"""What is left to do for an item when its result is out, so that whoever waits for it need not wait."""

Ended = Callable[[BaseException | None, str | None, int], object]
"""Takes what an item raised, its traceback as text, and when it ended, ns since the epoch; once its result is
out."""


class Again(NamedTuple):
    """How items with an equal carrier begin from now on, where that can be done without the observer.

    A copy of a context becomes current, and in it an instance of a class, which is also what is told later.
    Its constructor does not run. Beside its attributes it has, as `_item`: the function, its arguments, the
    pool's name and kind, what the item was queued, ns, and when it began, ns since the epoch.

    Attributes:
        carrier: Of those items.
        unchanged: Ends it: namespaces, a name in each, and what has to be there still, the same object.
        context: A dict of some class.
        key: Under which the copy has the instance.
        ended: The class; its instances are told how their items ended, as `Ended` are.
        attributes: Of each instance.
    """

    carrier: Carrier
    unchanged: tuple[tuple[dict[str, Any], str, object], ...]
    context: dict[Any, Any]
    key: object
    ended: type[Any]
    attributes: dict[str, Any]


End = (
    Callable[[BaseException | None, str | None], Late | None]
    | Token[Any]
    | tuple[Token[Any], Ended]
    | tuple[Token[Any], Ended, Again]
)
"""Takes what the item raised, and its traceback as text; or a token of the crossing's context variable, with
or without what is told later: then no Python runs before the result is out. What comes with both may be left
unheard."""

Replacement = tuple[Any, Callable[[], None]]
"""What stands in a function's place, and what turns it off: from then on it does what the function does."""


class Observer(Protocol):
    """Called before an item runs; what it returns is called after."""

    def __call__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        carrier: Carrier,
        pool: str,
        kind: str,
        queue_ns: int,
        /,
    ) -> End | None:
        """Take note of an item that is about to run.

        Args:
            function: What will be called, as the pool has it.
            args: Its positional arguments.
            carrier: What was captured where it was handed in.
            pool: The name of its pool.
            kind: `process` or `mp_pool`.
            queue_ns: From being handed in to now.
        """
        ...


class Crossing(Protocol):
    """Takes note of work items on their way; a worker process runs one of them after the other.

    What is in the way of an item, in its pool's own functions, is to cost little: see what replaces them.
    """

    def begin(
        self, key: object, parcel: Parcel | None, kind: str, function: Any, args: tuple[Any, ...], /
    ) -> None:
        """Take note of the item that this process runs next.

        Args:
            key: Tells its result apart; never None.
            parcel: What travelled beside it; None where whoever submitted it is not observed.
            kind: `process` or `mp_pool`.
            function: What will be called.
            args: Its positional arguments.
        """
        ...

    def end(self, key: object, error: BaseException | None, stacktrace: str | None, /) -> Timing | None:
        """Return what travels beside the result; the second call for an item says what the first did.

        A pool builds a second result where the first one cannot be pickled.
        """
        ...

    def finish(self) -> None:
        """Do what the item before has left to do, now that its result is out."""
        ...

    def unwrap(self, original: Any, /) -> Replacement:
        """Replace `_CallItem.__init__`: the plain function leaves, with its parcel beside it."""
        ...

    def take(self, original: Any, /) -> Replacement:
        """Replace `_ExecutorManagerThread.process_result_item`: an item ends."""
        ...

    def arrive(self, original: Any, /) -> Replacement:
        """Replace `_CallItem.__setstate__`, or None, its absence: an item begins."""
        ...

    def answer(self, original: Any, /) -> Replacement:
        """Replace `_ResultItem.__init__`: an item has run."""
        ...

    def send_back(self, original: Any, /) -> Replacement:
        """Replace `_sendback_result`: its result is out."""
        ...
