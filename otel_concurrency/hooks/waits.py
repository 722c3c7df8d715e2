"""Where we attach to asyncio's locks and queues: `_get_loop`, which they call only when somebody has to wait.

`Lock.acquire`, `Semaphore.acquire`, `Condition.wait`, `Event.wait`, `Queue.get` and `Queue.put` make the
future that they await by `self._get_loop().create_future()`, CPython 3.10 to 3.15 (`locks.py`, `queues.py`).
Who gets what they want at once never comes here, and pays nothing. Calls from anywhere else are let through.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from asyncio import mixins
from collections.abc import Callable
from types import CodeType
from typing import Any, Protocol

from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.probes.waits import KINDS


class Waits(Protocol):
    """What hears of those that wait."""

    def wait_begins(self, kind: int, /) -> bool:
        """Count a wait of the task that runs now, if its steps are seen."""
        ...

    def wait_for(self, future: asyncio.Future[Any], kind: int, /) -> None:
        """Count a wait that lasts until a future is done."""
        ...


class WaitHook:
    """Tells of each task that has to wait for a lock, a condition, an event or a queue.

    Args:
        waits: Who is told.
    """

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
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
        kind_of, frame, waits = _kinds().get, sys._getframe, self._waits

        @functools.wraps(original)
        def _get_loop(self: Any) -> Any:
            loop = original(self)
            if switch.is_on:
                kind = kind_of(frame(1).f_code)
                if kind is not None and not waits.wait_begins(kind):
                    return _Waited(loop, waits, kind)
            return loop

        return _get_loop


class _Waited:
    """Stands for a loop where its next call is `create_future`."""

    __slots__ = ("_kind", "_loop", "_waits")

    def __init__(self, loop: Any, waits: Waits, kind: int) -> None:
        self._loop, self._waits, self._kind = loop, waits, kind

    def create_future(self) -> Any:
        future = self._loop.create_future()
        self._waits.wait_for(future, self._kind)
        return future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


def _kinds() -> dict[CodeType, int]:
    """Return the kind of each function that waits, by its code."""
    waiting: dict[str, Callable[..., Any]] = {
        "lock": asyncio.Lock.acquire,
        "semaphore": asyncio.Semaphore.acquire,
        "condition": asyncio.Condition.wait,
        "event": asyncio.Event.wait,
        "queue_get": asyncio.Queue.get,
        "queue_put": asyncio.Queue.put,
    }
    return {function.__code__: KINDS.index(kind) for kind, function in waiting.items()}
