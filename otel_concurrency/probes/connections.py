"""What a program's connection pools lend: who waits for a connection, who has one, and for how long.

A hook tells of each step of a connection's way, from any thread, within a garbage collection, too: nothing
that it calls here waits for a lock, or raises. What a library knows of its own pools is asked when somebody
reads.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from asyncio import _get_running_loop, current_task
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from time import monotonic_ns
from typing import Any, NamedTuple, Protocol, TypeVar

from otel_concurrency.probes.event_counts import EventCounts
from otel_concurrency.probes.histogram import MAX_PENDING, Histogram, HistogramState

OTHER = "_other"
"""The row of every pool beyond the limit."""

MAX_POOLS = 32
"""Names of pools that are told apart."""

AT_ONCE_NS = 50_000
"""Who has a connection within this time did not wait for it: asking takes that long."""

MAX_EXEMPLARS = 1_000
"""Waits between two readings that may become exemplars."""

_LET_GO = ("GeneratorExit", "GreenletExit")

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """All pools of one name, frozen; every number only grows.

    Attributes:
        name: The pools' name, or `_other`.
        timeouts: How often somebody gave up waiting, because the pool said so.
        wait_times: From asking for a connection to having one; one that had to be made included.
        use_times: From having it to giving it back.
        create_times: What it took to make one, those that failed left out.
    """

    name: str
    timeouts: int
    wait_times: HistogramState
    use_times: HistogramState
    create_times: HistogramState


@dataclass(frozen=True, slots=True)
class ConnectionLevel:
    """How full a pool is at this moment; pools of one name add up.

    Attributes:
        used: Connections that somebody has.
        idle: Open ones that nobody has; None where nobody can tell.
        pending: Those that wait for one.
        limit: How many there may be; None without a limit.
        idle_min: How many the pool keeps open at least; None where it promises nothing.
        idle_max: How many idle ones it keeps; None where it keeps all.
    """

    used: int
    idle: int | None = None
    pending: int = 0
    limit: int | None = None
    idle_min: int | None = None
    idle_max: int | None = None


class Holder(NamedTuple):
    """Who has a connection.

    Attributes:
        who: The name of the task, or of the thread, that took it.
        held_ns: For how long by now.
    """

    who: str
    held_ns: int


class Observer(Protocol):
    """Who hears of waits; called where somebody waited, when it is over, in its context."""

    def waited(self, pool: str, ns: int, /) -> None:
        """Somebody waited who could not have a connection at once, and has one now, or gave up."""
        ...

    def timed_out(self, pool: str, ns: int, holders: Sequence[Holder], /) -> None:
        """Somebody was sent away: the pool had no connection for it in time."""
        ...


class _Row:
    """The numbers of all pools of one name."""

    __slots__ = ("create_times", "slow_waits", "use_times", "wait_times")

    def __init__(self) -> None:
        self.wait_times, self.use_times, self.create_times = Histogram(), Histogram(), Histogram()
        self.slow_waits: deque[tuple[int, object, int]] = deque()


class ConnectionPoolProbe:
    """One pool's way to its row.

    Attributes:
        name: Under which it counts.
        held: Connections that somebody has: since when, and who.
        waits: Since when each of those waits that asked for one.
    """

    __slots__ = ("__weakref__", "_probe", "_row", "held", "name", "waits")

    def __init__(self, probe: ConnectionProbe, name: str, row: _Row) -> None:
        self._probe = probe
        self._row = row
        self.name = name
        self.held: dict[Hashable, tuple[int, str]] = {}
        self.waits: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<ConnectionPoolProbe {self.name!r} [{len(self.held)} held, {len(self.waits)} waiting]>"

    def asks(self) -> int:
        """Note that somebody asks for a connection; returns what `has`, `gives_up` or `is_denied` takes."""
        number = next(_numbers)
        self.waits[number] = monotonic_ns()
        return number

    def has(self, asked: int, connection: Hashable) -> None:
        """Note that somebody got what it asked for.

        Args:
            asked: What `asks` returned.
            connection: What `gives_back` will say; its `id`, as a rule.
        """
        now_ns = monotonic_ns()
        ns = now_ns - self.waits.pop(asked, now_ns)
        self.held[connection] = (now_ns, _who())
        if ns < AT_ONCE_NS:
            pending = self._row.wait_times.pending
            pending.append(ns)
            if len(pending) >= MAX_PENDING:
                self._probe.sort_in(self._row.wait_times)
        else:
            self._probe.waited(self, self._row, ns)

    def gives_up(self, asked: int, error: BaseException | None = None) -> None:
        """Note that somebody does not wait any more: it was cancelled, or no connection could be made.

        Args:
            asked: As for `has`.
            error: Why; a coroutine or greenlet that is let go of is in no place to tell anything.
        """
        now_ns = monotonic_ns()
        ns = now_ns - self.waits.pop(asked, now_ns)
        if ns >= AT_ONCE_NS and type(error).__name__ not in _LET_GO:
            self._probe.tell_waited(self.name, ns)

    def is_denied(self, asked: int) -> None:
        """Note that somebody was sent away, because none of the connections came back in time."""
        now_ns = monotonic_ns()
        self._probe.timed_out(self, now_ns - self.waits.pop(asked, now_ns), now_ns)

    def gives_back(self, connection: Hashable) -> None:
        """Note that a connection is given back, or lost to its pool; the first time counts."""
        held = self.held.pop(connection, None)
        if held is not None:
            pending = self._row.use_times.pending
            pending.append(monotonic_ns() - held[0])
            if len(pending) >= MAX_PENDING:
                self._probe.sort_in(self._row.use_times)

    def created(self, ns: int) -> None:
        """Note that a connection was made."""
        self._row.create_times.pending.append(ns)

    def holders(self, now_ns: int) -> list[Holder]:
        """Return who has connections, for the longest time first."""
        held = sorted(self.held.copy().values())
        return [Holder(who, now_ns - since_ns) for since_ns, who in held]

    def begin(self, row: _Row) -> None:
        """Begin at zero, with nobody who has a connection and nobody who waits."""
        self._row, self.held, self.waits = row, {}, {}


class ConnectionProbe:
    """Keeps the numbers of all connection pools of a process.

    Args:
        origin: Where the context is found that exemplars of waits are to keep.
        clock: Wall-clock time, ns since the epoch.

    Attributes:
        observer: Hears of waits; None: nobody does.
    """

    def __init__(
        self, *, origin: ContextVar[Any] | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._origin = origin
        self._clock = clock
        self.observer: Observer | None = None
        self._alive: weakref.WeakSet[ConnectionPoolProbe] = weakref.WeakSet()
        self._watched: dict[int, tuple[weakref.ref[Any], ConnectionPoolProbe, Callable[[Any], Any]]] = {}
        self._complained: set[object] = set()
        self.reset()

    def __repr__(self) -> str:
        return f"<ConnectionProbe [{len(self._watched)} pools of {len(self._rows)} names]>"

    def reset(self) -> None:
        """Begin at zero, as a forked child must: whoever has a connection there is not in it."""
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self._rows: dict[str, _Row] = {}
        self._timeouts = EventCounts(max_names=MAX_POOLS)
        for pool in list(self._alive):
            pool.begin(self._row(pool.name))

    def pool(
        self, name: str, anchor: _T, level: Callable[[_T], ConnectionLevel | None]
    ) -> ConnectionPoolProbe:
        """Return the probe of a pool that nobody has told of yet.

        Args:
            name: Pools of one name share a row.
            anchor: The pool itself, or what lives as long; kept weakly.
            level: Tells how full it is, asked when somebody reads; None once it is closed. What it refers to
                stays alive.
        """
        if name not in self._rows and len(self._rows) >= MAX_POOLS:
            name = OTHER
        pool = ConnectionPoolProbe(self, name, self._row(name))
        self._alive.add(pool)
        key, watched = id(anchor), self._watched
        watched[key] = (weakref.ref(anchor, lambda _: watched.pop(key, None)), pool, level)
        return pool

    def read(self) -> list[ConnectionRow]:
        """Return each row, exemplars drained."""
        return self._rows_by(Histogram.read)

    def peek(self) -> list[ConnectionRow]:
        """Return each row, exemplars left where they are."""
        return self._rows_by(Histogram.peek)

    def _rows_by(self, state: Callable[[Histogram], HistogramState]) -> list[ConnectionRow]:
        timeouts = self._timeouts.read()
        with self._lock:
            rows = []
            for name, row in list(self._rows.items()):
                while row.slow_waits:
                    row.wait_times.observe(*row.slow_waits.popleft())
                times = (state(row.wait_times), state(row.use_times), state(row.create_times))
                rows.append(ConnectionRow(name, timeouts.get((name,), 0), *times))
            return rows

    def holders(self, now_ns: int) -> list[tuple[str, Holder]]:
        """Return who has connections, with the name of each one's pool, of each pool the longest first."""
        pools = [(reference(), pool) for reference, pool, _ in list(self._watched.values())]
        return [
            (pool.name, holder)
            for anchor, pool in pools
            if anchor is not None
            for holder in pool.holders(now_ns)
        ]

    def levels(self) -> list[tuple[str, ConnectionLevel]]:
        """Return the name of each live pool, and how full it is."""
        return [(pool.name, level) for pool, level in self.pools()]

    def pools(self) -> list[tuple[ConnectionPoolProbe, ConnectionLevel]]:
        """Return each live pool, and how full it is."""
        levels: list[tuple[ConnectionPoolProbe, ConnectionLevel]] = []
        for reference, pool, level in list(self._watched.values()):
            anchor = reference()
            if anchor is not None:
                try:
                    if (found := level(anchor)) is not None:
                        levels.append((pool, found))
                except Exception:
                    self._complain("how full a connection pool is cannot be told")
        return levels

    def sort_in(self, histogram: Histogram) -> None:
        """Sort in what waits, unless somebody is at it, perhaps this very thread."""
        if self._lock.acquire(blocking=False):
            try:
                histogram.sort_in()
            finally:
                self._lock.release()

    def waited(self, pool: ConnectionPoolProbe, row: _Row, ns: int) -> None:
        """Take note of a wait, and tell of it."""
        origin = self._origin
        exemplar_of = None if origin is None or len(row.slow_waits) >= MAX_EXEMPLARS else origin.get(None)
        row.slow_waits.append((ns, exemplar_of, self._clock()))
        self.tell_waited(pool.name, ns)

    def tell_waited(self, name: str, ns: int) -> None:
        """Tell of a wait that is over."""
        if self.observer is not None:
            try:
                self.observer.waited(name, ns)
            except Exception:
                self._complain("a wait for a connection is not told")

    def timed_out(self, pool: ConnectionPoolProbe, ns: int, now_ns: int) -> None:
        """Take note of somebody who was sent away, and tell of it."""
        self._timeouts.add(pool.name)
        if self.observer is not None:
            try:
                self.observer.timed_out(pool.name, ns, pool.holders(now_ns))
            except Exception:
                self._complain("a timeout of a connection pool is not told")

    def _row(self, name: str) -> _Row:
        return self._rows.setdefault(name, _Row())

    def _complain(self, about: str) -> None:
        if about not in self._complained:
            self._complained.add(about)
            _logger.exception("%s; said once", about)


def pool_name(address: str, port: int | None = None, namespace: str | None = None) -> str:
    """Return what the semantic conventions call a pool that has no name: `address:port/namespace`."""
    if ":" in address:  # IPv6
        address = f"[{address}]"
    server = f"{address}:{port}" if port else address
    return f"{server}/{namespace}" if namespace else server


_numbers = count(1)


def _who() -> str:
    """Return the name of the task that runs, or of the thread."""
    loop = _get_running_loop()
    if loop is not None and (task := current_task(loop)) is not None:
        return task.get_name()
    # `threading.current_thread()` would register a dummy, for good, for a thread that C code started.
    thread = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]
    return "a thread" if thread is None else str(thread.name)
