"""The pure twin of the native work probe.

Nothing here waits for a lock but a reader: what is told may be told by a garbage collection, or by a signal
handler, in the middle of what this thread was telling. Whoever finds the lock taken leaves its news in a
queue, for the holder after that.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from types import NoneType
from typing import Any

from otel_concurrency.probes.account import EXECUTOR, account_in
from otel_concurrency.probes.crossing import Crossing, Observer
from otel_concurrency.probes.functions import joined, name_parts
from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.pure_crossing import PureCrossing
from otel_concurrency.probes.pure_sent import PureSent
from otel_concurrency.probes.work import (
    MAX_ERROR_TYPES,
    MAX_FUNCTIONS,
    MAX_POOLS,
    OTHER,
    PoolCount,
    PoolKind,
    PoolRow,
    merge_run_times,
)

READER_PATIENCE_S = 1.0
"""How long a reader waits for the lock: a signal handler that reads may stand above the holder itself."""

_FINISHED, _CANCELLED, _FAILED = range(3)


class _Row:
    """The numbers of one pool name."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.begin()

    def begin(self) -> None:
        self.submitted = self.finished = self.cancelled = self.rejected = self.abandoned = 0
        self.failed: dict[str, int] = {}
        self.unretrieved: dict[str, int] = {}
        self.crashes: dict[str, int] = {}
        self.queue_times = Histogram()
        self.transfer_times = Histogram()
        self.run_times: dict[str, Histogram] = {}

    def read(self) -> PoolRow:
        return PoolRow(
            self.name,
            self.kind,
            self.submitted,
            self.finished,
            self.cancelled,
            dict(self.failed),
            self.rejected,
            self.abandoned,
            dict(self.unretrieved),
            dict(self.crashes),
            self.queue_times.read(),
            self.transfer_times.read(),
            merge_run_times((name, times.read()) for name, times in self.run_times.items()),
        )

    def peek(self) -> PoolCount:
        return PoolCount(
            self.name,
            self.kind,
            self.submitted,
            self.submitted
            - self.finished
            - self.cancelled
            - self.rejected
            - self.abandoned
            - sum(self.failed.values()),
            self.queue_times.peek(),
            self.transfer_times.peek(),
            merge_run_times((name, times.peek()) for name, times in self.run_times.items()),
        )


class PureWorkProbe:
    """Counts work items by pool.

    Args:
        max_pools: Names kept; further pools share the row `_other` of their kind.
        max_functions: Function names kept over all pools, then `_other`.
        max_error_types: Exception type names kept over all pools, then `_other`.
        origin: Context variable whose value exemplars keep.
        span_key: Under which such a value holds the span whose account hears of waiting.
        monotonic_ns: The clock.
    """

    way = "pure"
    sent = PureSent

    def __init__(
        self,
        *,
        max_pools: int = MAX_POOLS,
        max_functions: int = MAX_FUNCTIONS,
        max_error_types: int = MAX_ERROR_TYPES,
        origin: contextvars.ContextVar[Any] | None = None,
        span_key: object = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._max_pools = max_pools
        self._max_functions = max_functions
        self._max_error_types = max_error_types
        self.origin = origin
        self._span_key = span_key
        self.now_ns = monotonic_ns
        self.generation = 0
        self.lost = 0  # news that could not be taken in
        self._rows: dict[tuple[str, str], _Row] = {}
        self._functions: set[str] = set()
        self._error_names: set[str] = set()
        self._lock = threading.Lock()
        self._news: deque[tuple[Any, ...]] = deque()

    def pool(self, name: str, kind: PoolKind) -> PurePoolProbe:
        """Return a new pool's probe; pools of one name and kind share a row."""
        key = (name, kind)
        row = self._rows.get(key)
        if row is None:
            if sum(known != OTHER for known, _ in self._rows) >= self._max_pools:
                key = (OTHER, kind)
            row = self._rows.setdefault(key, _Row(*key))
        return PurePoolProbe(self, row)

    def crossing(
        self,
        observer: Observer | None,
        trouble: Callable[[Exception], object],
        *,
        context_var: contextvars.ContextVar[Any] | None = None,
    ) -> Crossing:
        """Return what takes note of work items on their way to other processes and back."""
        return PureCrossing(observer, trouble, context_var=context_var)

    def read(self) -> list[PoolRow]:
        """Return each row, exemplars drained."""
        lock = self._lock  # a reset makes a new one
        is_ours = lock.acquire(timeout=READER_PATIENCE_S)
        try:
            if is_ours:
                self._catch_up()
            return [row.read() for row in list(self._rows.values())]
        finally:
            if is_ours:
                lock.release()

    def peek(self) -> list[PoolCount]:
        """Return the numbers of each row, exemplars left where they are."""
        lock = self._lock
        is_ours = lock.acquire(timeout=READER_PATIENCE_S)
        try:
            if is_ours:
                self._catch_up()
            return [row.peek() for row in list(self._rows.values())]
        finally:
            if is_ours:
                lock.release()

    def reset(self) -> None:
        """Begin at zero, as a forked child must; work submitted before it counts nowhere any more."""
        self.generation += 1
        self._lock = threading.Lock()
        self._news.clear()
        self._functions.clear()
        self._error_names.clear()
        for row in self._rows.values():
            row.begin()

    def tell(self, *news: Any) -> None:
        """Take in `(method, row, arguments...)`, now or soon."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            self._news.append(news)
            return
        try:
            self._news.append(news)
            self._catch_up()
        finally:
            lock.release()

    def _catch_up(self) -> None:
        while self._news:
            method, *arguments = self._news.popleft()
            try:
                method(*arguments)
            except Exception:  # whose news it was, nobody here could say
                self.lost += 1

    # What follows runs under the lock.

    def ended(
        self,
        row: _Row,
        outcome: int,
        function: Any,
        queue_ns: int,
        run_ns: int,
        transfer_ns: int,
        error: Any,
        origin: Any,
        at_unix_ns: int,
    ) -> None:
        """Count the end of a work item."""
        if outcome == _FINISHED:
            row.finished += 1
        elif outcome == _FAILED:
            _bump(row.failed, self._error_name(error))
        else:
            row.cancelled += 1
        if queue_ns >= 0:
            row.queue_times.observe(queue_ns, origin, at_unix_ns)
            account = account_in(origin, self._span_key)
            if account is not None:
                account.add_wait(EXECUTOR, queue_ns)
        if transfer_ns >= 0:
            row.transfer_times.observe(transfer_ns, origin, at_unix_ns)
        if run_ns >= 0:
            name = function if isinstance(function, str) else joined(*function)
            times = row.run_times.get(name)
            if times is None:
                times = row.run_times.setdefault(self._function_name(name), Histogram())
            times.observe(run_ns, origin, at_unix_ns)

    def add(self, row: _Row, field: str, count: int) -> None:
        """Add to a plain number of a row."""
        setattr(row, field, getattr(row, field) + count)

    def reject_unwrapped(self, row: _Row) -> None:
        """Count a refused attempt."""
        row.submitted += 1
        row.rejected += 1

    def add_error(self, row: _Row, name: str) -> None:
        """Count a failure that nobody looked at."""
        _bump(row.unretrieved, self._error_name(name))

    def add_crash(self, row: _Row, reason: str) -> None:
        """Count a lost worker."""
        _bump(row.crashes, self._error_name(reason))

    def _error_name(self, error: Any) -> str:
        name = type_name(error) if isinstance(error, type) else str(error)
        if name not in self._error_names:
            if len(self._error_names) >= self._max_error_types:
                return OTHER
            self._error_names.add(name)
        return name

    def _function_name(self, name: str) -> str:
        if name not in self._functions:
            if len(self._functions) >= self._max_functions:
                return OTHER
            self._functions.add(name)
        return name


def _bump(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


class PurePoolProbe:
    """One pool's way to its row; see `PoolProbe`."""

    __slots__ = ("is_closing", "probe", "row")

    def __init__(self, probe: PureWorkProbe, row: _Row) -> None:
        self.probe = probe
        self.row = row
        self.is_closing = False

    @property
    def name(self) -> str:
        """The name it counts under."""
        return self.row.name

    def wrap(self, function: Callable[..., Any], context: contextvars.Context | None = None) -> PureWork:
        """Count a work item as submitted, and return what to submit in the function's place."""
        if not isinstance(context, (contextvars.Context, NoneType)):
            raise TypeError("context is a contextvars.Context or None")
        work = PureWork()
        work._function = function
        work._otel_concurrency_context = context
        work._generation = self.probe.generation
        self.probe.tell(self.probe.add, self.row, "submitted", 1)
        work._submitted_ns = self.probe.now_ns()
        work._pool = work._otel_concurrency_pool = self
        return work

    def send(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        capture: Callable[[], dict[str, str]],
        /,
    ) -> PureSent:
        """Count a work item as submitted, and return what stands for it until it leaves this process."""
        return PureSent(self, function, args, capture)

    def submitted(self) -> None:
        """Count a work item that went in unwrapped, accepted."""
        self.probe.tell(self.probe.add, self.row, "submitted", 1)

    def rejected(self) -> None:
        """Count a work item that was not wrapped, and that the pool refused."""
        self.probe.tell(self.probe.reject_unwrapped, self.row)

    def abandoned(self, count: int = 1) -> None:
        """Count submitted work items that nobody will run."""
        self.probe.tell(self.probe.add, self.row, "abandoned", count)

    def unretrieved(self, error_type: str) -> None:
        """Count a failure that nobody looked at."""
        self.probe.tell(self.probe.add_error, self.row, _text(error_type))

    def crashed(self, reason: str) -> None:
        """Count a lost worker."""
        self.probe.tell(self.probe.add_crash, self.row, _text(reason))

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
        """Count the end of a submitted work item that was timed elsewhere."""
        outcome = _FAILED if error_type is not None else _CANCELLED if cancelled else _FINISHED
        self.probe.tell(
            self.probe.ended,
            self.row,
            outcome,
            _text(function),
            queue_ns,
            run_ns,
            -1 if transfer_ns is None else transfer_ns,
            None if error_type is None else _text(error_type),
            origin or None,
            time.time_ns() if origin else 0,
        )


def _text(name: object) -> str:
    if type(name) is not str:
        raise TypeError("a name is a str")
    return name


class PureWork:
    """A function on its way to a worker; see `Work`."""

    __slots__ = (
        "__weakref__",
        "_function",
        "_generation",
        "_otel_concurrency_context",
        "_otel_concurrency_pool",
        "_pool",
        "_submitted_ns",
    )

    _pool: PurePoolProbe | None  # until it has ended
    _otel_concurrency_pool: PurePoolProbe
    _function: Callable[..., Any]
    _otel_concurrency_context: contextvars.Context | None
    _generation: int
    _submitted_ns: int

    def __repr__(self) -> str:
        return repr(self._function)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name in PureWork.__slots__:  # not set yet
            raise AttributeError(name)
        return getattr(self._function, name)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self._function

    def reject(self) -> None:
        """Say that the pool would not have it."""
        pool, self._pool = self._pool, None
        if pool is not None and self._generation == pool.probe.generation:
            pool.probe.tell(pool.probe.add, pool.row, "rejected", 1)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        pool, self._pool = self._pool, None
        context = self._otel_concurrency_context
        error: type[BaseException] | None = None
        began_ns = pool.probe.now_ns() if pool is not None else 0
        try:
            if context is None:
                return self._function(*args, **kwargs)
            return context.run(self._function, *args, **kwargs)
        except BaseException as raised:
            error = type(raised)
            raise
        finally:
            if pool is not None:
                _end(pool, self, args, began_ns, error)
            # A traceback keeps this frame; it is to keep nothing else alive.
            self = context = pool = None  # type: ignore[assignment]
            del args, kwargs

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None and self._generation == pool.probe.generation:
            field = "abandoned" if pool.is_closing else "cancelled"
            pool.probe.tell(pool.probe.add, pool.row, field, 1)


def _end(
    pool: PurePoolProbe,
    work: PureWork,
    args: tuple[Any, ...],
    began_ns: int,
    error: type[BaseException] | None,
) -> None:
    probe = pool.probe
    ended_ns = probe.now_ns()
    if work._generation != probe.generation:
        return
    origin = None
    if probe.origin is not None:
        context = work._otel_concurrency_context
        origin = probe.origin.get(None) if context is None else context.get(probe.origin)
    probe.tell(
        probe.ended,
        pool.row,
        _FINISHED if error is None else _FAILED,
        name_parts(work._function, args),
        began_ns - work._submitted_ns,
        ended_ns - began_ns,
        -1,
        error,
        origin or None,
        time.time_ns() if origin else 0,
    )
