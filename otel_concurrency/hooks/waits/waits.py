"""Where we attach to asyncio's locks and queues: `_get_loop`, which they call only when somebody has to wait.

`Lock.acquire`, `Semaphore.acquire`, `Condition.wait`, `Event.wait`, `Queue.get` and `Queue.put` make the
future that they await by `self._get_loop().create_future()`, CPython 3.10 to 3.15 (`locks.py`, `queues.py`).
Who gets what they want at once never comes here, and pays nothing. Calls from anywhere else are let through,
and so is who waits inside of a connection pool, for a connection.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from asyncio import mixins
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.pools.pool_locks import POOL_LOCKS
from otel_concurrency.hooks.waits.wait_kinds import WaitKinds
from otel_concurrency.probes.waits import KINDS, LOCK_KINDS, WaitNames, row_of

_EVENT = KINDS.index("event")
_CONDITION = KINDS.index("condition")
_BARRIER = KINDS.index("barrier")
_LAST_LOCK = max(LOCK_KINDS)


class Waits(Protocol):
    """What hears of those that wait."""

    wait_names: WaitNames

    @property
    def wait_begins(self) -> Callable[[int], bool]:
        """Counts a wait of the task that runs now, if its steps are seen."""
        ...

    def wait_for(self, future: asyncio.Future[Any], row: int, /) -> None:
        """Count a wait that lasts until a future is done."""
        ...


class WaitHook:
    """Tells of each task that has to wait for a lock, a condition, an event, a barrier or a queue.

    Args:
        waits: Who is told.
        site: Tells where one of these was made, for a name to count it by; None: they count by kind alone.
        kinds: Knows who waits for an event, and what that stands for.
    """

    def __init__(
        self,
        waits: Waits,
        site: Callable[[object], str | None] | None = None,
        kinds: WaitKinds | None = None,
    ) -> None:
        self._waits = waits
        self._site = site
        self._kinds = kinds or WaitKinds()
        self._patch = Patch(mixins._LoopBoundMixin, "_get_loop", switched(self._observe))

    def __repr__(self) -> str:
        return f"<WaitHook {self._patch}>"

    def install(self) -> None:
        """Patch; a second call changes nothing."""
        self._patch.install()

    def remove(self) -> None:
        """Put back what was there."""
        self._patch.remove()

    def _observe(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        kind_of, frame, waits, is_named = _kinds().get, sys._getframe, self._waits, self._site is not None
        wait_begins, number, kind_inside = waits.wait_begins, self.number, self._kinds.kind
        is_in_pool = POOL_LOCKS.has

        @functools.wraps(original)
        def _get_loop(self: Any) -> Any:
            loop = original(self)
            if switch.is_on:
                caller = frame(1)
                row = kind_of(id(caller.f_code))
                if row == _EVENT:
                    row = kind_inside(caller, _EVENT)
                if row is not None and not (row <= _LAST_LOCK and is_in_pool(self)):
                    if row == _CONDITION and _is_barrier(caller.f_back):
                        row = _BARRIER
                    if is_named:
                        row = row_of(row, number(self))
                    if not wait_begins(row):
                        return _Waited(loop, waits, row)
            return loop

        return _get_loop

    def number(self, it: object) -> int:
        """Return the number of the name that waits for this count by."""
        site = self._site(it) if self._site is not None else None
        return self._waits.wait_names.number(site) if site is not None else 0


class _Waited:
    """Stands for a loop where its next call is `create_future`."""

    __slots__ = ("_loop", "_row", "_waits")

    def __init__(self, loop: Any, waits: Waits, row: int) -> None:
        self._loop, self._waits, self._row = loop, waits, row

    def create_future(self) -> Any:
        future = self._loop.create_future()
        self._waits.wait_for(future, self._row)
        return future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


def _kinds() -> dict[int, int]:
    """Return the kind of each function that waits, by the identity of its code: hashing one takes longer."""
    waiting: dict[str, Callable[..., Any]] = {
        "lock": asyncio.Lock.acquire,
        "semaphore": asyncio.Semaphore.acquire,
        "condition": asyncio.Condition.wait,
        "event": asyncio.Event.wait,
        "queue_get": asyncio.Queue.get,
        "queue_put": asyncio.Queue.put,
    }
    return {id(inspect.unwrap(function).__code__): KINDS.index(kind) for kind, function in waiting.items()}


# A barrier waits by `Condition.wait_for`, which waits by `Condition.wait`.
_WAIT_FOR = asyncio.Condition.wait_for.__code__
_BARRIER_CODES = frozenset(
    function.__code__
    for name in ("_block", "_wait")
    if (function := vars(getattr(asyncio, "Barrier", object)).get(name)) is not None
)


def _is_barrier(frame: FrameType | None) -> bool:
    return (
        frame is not None
        and frame.f_code is _WAIT_FOR
        and frame.f_back is not None
        and frame.f_back.f_code in _BARRIER_CODES
    )
