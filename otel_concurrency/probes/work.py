"""What a work probe keeps, a row per pool, and what it offers: as tasks.py for tasks, so this for pools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from otel_concurrency.probes.crossing import Crossing, Observer
from otel_concurrency.probes.histogram import HistogramState, merge_states

OTHER = "_other"
"""The row of every pool, function and error type beyond a table's limit."""

MAX_POOLS = 32
MAX_FUNCTIONS = 100
MAX_ERROR_TYPES = 50

PoolKind = Literal["thread", "process", "interpreter", "anyio", "trio", "mp_pool"]


@dataclass(frozen=True, slots=True)
class PoolRow:
    """All pools of one name and kind, frozen; every number only grows.

    Attributes:
        name: The pools' name, or `_other`.
        kind: `thread`, `process`, `interpreter`, `anyio`, `trio` or `mp_pool`.
        submitted: Work items handed in, rejected ones included. Alive are `submitted - finished - cancelled -
            sum(failed) - rejected - abandoned`.
        finished: Those that returned.
        cancelled: Those that were cancelled before they began.
        failed: Those that raised, by qualified exception type.
        rejected: Those that the pool refused: it was shut down, or broken.
        abandoned: Those that nobody will run, because their pool was shut down or died.
        unretrieved: Failures that nobody looked at, by qualified exception type; also among `failed`.
        crashes: Workers lost, by reason.
        queue_times: From being handed in to the real start.
        transfer_times: To and from another process: neither queued nor running.
        run_times: From start to end, by `module.qualname` of the function.
    """

    name: str
    kind: str
    submitted: int
    finished: int
    cancelled: int
    failed: Mapping[str, int]
    rejected: int
    abandoned: int
    unretrieved: Mapping[str, int]
    crashes: Mapping[str, int]
    queue_times: HistogramState
    transfer_times: HistogramState
    run_times: Mapping[str, HistogramState]


@dataclass(frozen=True, slots=True)
class PoolLevel:
    """How full a pool is at this moment; pools of one name add up.

    Attributes:
        name: As in `PoolRow`.
        kind: As in `PoolRow`.
        active: Workers that run something; None where nobody can tell.
        idle: Workers that wait for work; None where nobody can tell.
        limit: How many workers there may be; None without a limit.
        queued: Work items waiting for a worker; None where nobody can tell.
    """

    name: str
    kind: str
    active: int | None = None
    idle: int | None = None
    limit: int | None = None
    queued: int | None = None


class PoolCount(NamedTuple):
    """What is asked of a row every now and then; nothing is drained.

    Fields are as in `PoolRow`; `live` are the work items that have not ended.
    """

    name: str
    kind: str
    submitted: int
    live: int
    queue_times: HistogramState
    transfer_times: HistogramState
    run_times: Mapping[str, HistogramState]


class Work(Protocol):
    """A function on its way to a worker: calling it runs the function, and counts that.

    It looks like the function; its own are only `_otel_concurrency_pool`, its `PoolProbe`, and
    `_otel_concurrency_context`, what it runs in, or None.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; its result or exception passes through."""
        ...

    def reject(self) -> None:
        """Say that the pool would not have it, so that letting go of it means nothing more."""
        ...


class Sent(Protocol):
    """A function on its way to another process, in whose place it stands until it is packed.

    It counts one end, whichever it is told first; let go of without any, it counts as cancelled. Calling it
    calls the function, and its pickled form is one that does the same. `_otel_concurrency_pool` is its
    `PoolProbe`.
    """

    @property
    def function(self) -> Callable[..., Any]:
        """What was submitted."""
        ...

    @property
    def parcel(self) -> tuple[dict[str, str], int, str]:
        """What travels beside it: the carrier, when it was handed in, and the name of its pool."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, uncounted."""
        ...

    def reject(self) -> None:
        """Count it as refused by its pool."""
        ...

    def cancel(self) -> None:
        """Count it as cancelled before it began."""
        ...

    def abandon(self) -> None:
        """Count it as given up by its pool."""
        ...

    def done(self, now_ns: int, timing: tuple[int, int] | None, error_type: str | None, /) -> None:
        """Count its end.

        Args:
            now_ns: When it came back, by the clock of when it was handed in.
            timing: How long it was queued, and how long it ran; None: unknown. The rest was transfer.
            error_type: `type_name` of what it raised.
        """
        ...


class PoolProbe(Protocol):
    """One pool's way to its row. Everything here may be called from any thread, and within a collection.

    Attributes:
        is_closing: Set it when the pool gives up what it has queued: work that is let go of without having
            run counts as abandoned from then on, as cancelled until then.
    """

    is_closing: bool

    @property
    def name(self) -> str:
        """The name it counts under."""
        ...

    def wrap(self, function: Callable[..., Any], context: Context | None = None) -> Work:
        """Count a work item as submitted, now, and return what to submit in the function's place.

        Args:
            function: Called with whatever the result is called with.
            context: The function runs in it, by `context.run`; None: in the caller's.
        """
        ...

    def send(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        capture: Callable[[], dict[str, str]],
        /,
    ) -> Sent:
        """Count a work item as submitted, now, and return what stands for it until it leaves this process.

        Exemplars of its times keep the origin variable's value of now.

        Args:
            function: What was submitted; one that is a `Sent` already is taken out of it.
            args: Its positional arguments, for where the function is one of them.
            capture: Returns what travels beside it; not called where the origin variable is known, and empty.
        """
        ...

    def submitted(self) -> None:
        """Count a work item that went in unwrapped, accepted; `done` or `abandoned` ends it."""
        ...

    def rejected(self) -> None:
        """Count a work item that was not wrapped, and that the pool refused: as submitted and as rejected."""
        ...

    def abandoned(self, count: int = 1) -> None:
        """Count submitted work items that nobody will run."""
        ...

    def unretrieved(self, error_type: str) -> None:
        """Count a failure that nobody looked at."""
        ...

    def crashed(self, reason: str) -> None:
        """Count a lost worker."""
        ...

    def done(
        self,
        function: str,
        *,
        queue_ns: int,
        run_ns: int,
        transfer_ns: int | None = None,
        error_type: str | None = None,
        cancelled: bool = False,
        origin: object = None,
    ) -> None:
        """Count the end of a submitted work item that was timed elsewhere, in a child process for instance.

        Args:
            function: Its `function_name`.
            queue_ns: From being handed in to the real start; negative: unknown.
            run_ns: From start to end; negative: unknown, or it never ran.
            transfer_ns: What it took to send it and its result; None: unknown, or nothing was sent.
            error_type: `type_name` of what it raised.
            cancelled: Whether it was cancelled before it began.
            origin: For exemplars: the value of the origin variable where it was handed in.
        """
        ...


class WorkProbe(Protocol):
    """What both ways of counting work offer."""

    way: str
    """`native` or `pure`."""

    sent: type[Any]
    """The class of what `PoolProbe.send` returns."""

    def pool(self, name: str, kind: PoolKind) -> PoolProbe:
        """Return a new pool's probe; pools of one name and kind share a row."""
        ...

    def crossing(
        self,
        observer: Observer | None,
        trouble: Callable[[Exception], object],
        *,
        context_var: ContextVar[Any] | None = None,
    ) -> Crossing:
        """Return what takes note of work items on their way to other processes and back.

        Args:
            observer: Called around each item that this process runs as a worker.
            trouble: Called with an exception that came up in there.
            context_var: An item that brings nothing does not bother the observer while this is empty; and
                the observer may return a token of it.
        """
        ...

    def read(self) -> list[PoolRow]:
        """Return each row, exemplars drained."""
        ...

    def peek(self) -> list[PoolCount]:
        """Return the numbers of each row, exemplars left where they are."""
        ...

    def reset(self) -> None:
        """Begin at zero, as a forked child must; work submitted before it counts nowhere any more."""
        ...


def merge_run_times(times: Iterable[tuple[str, HistogramState]]) -> dict[str, HistogramState]:
    """Add up distributions of one name."""
    merged: dict[str, HistogramState] = {}
    for name, state in times:
        known = merged.get(name)
        merged[name] = state if known is None else merge_states(known, state)
    return merged
