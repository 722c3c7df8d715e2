"""Where we attach to see an item go into a queue and come out of it, in whatever order the queue keeps.

The item itself is not touched: while it is in a queue, that queue holds it, so its identity is its own. Of
the same object put in several times, the first put is taken to come out first.
"""

from __future__ import annotations

import asyncio
import functools
import queue
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched
from otel_concurrency.hooks.weak_ids import WeakIds

_Notes = dict[int, deque[Any]]


class Carrier(Protocol):
    """What goes along with an item."""

    def sent(self) -> Any:
        """Return what an item that is put now shall bring along; None: nothing."""
        ...

    def received(self, brought: Any) -> None:
        """An item was taken that brought this along."""
        ...


class QueueItemHook:
    """Brings something along with each item of `asyncio.Queue` and `queue.Queue`, and of their subclasses.

    Args:
        carrier: Is asked and told.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._notes: WeakIds[_Notes] = WeakIds()
        # `put` and `get` of asyncio's come through these; those of threads' do not.
        self._patches = Patches(
            [
                Patch(asyncio.Queue, "put_nowait", switched(self._observe_put)),
                Patch(asyncio.Queue, "get_nowait", switched(self._observe_get)),
                Patch(queue.Queue, "put", switched(self._observe_put)),
                Patch(queue.Queue, "get", switched(self._observe_get)),
            ]
        )

    def __repr__(self) -> str:
        return f"<QueueItemHook {self._patches}>"

    def install(self) -> None:
        """Patch; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put back what was there."""
        self._patches.remove()
        self._notes.clear()

    def _observe_put(self, original: Callable[..., None], switch: Switch) -> Callable[..., None]:
        @functools.wraps(original)
        def put(self: Any, item: Any, *args: Any, **kwargs: Any) -> None:
            if not switch.is_on:
                return original(self, item, *args, **kwargs)
            note = sent(self, item)  # before: who takes it may be faster than we are
            try:
                original(self, item, *args, **kwargs)
            except BaseException:
                if note is not None:
                    note.pop()
                raise

        sent = self._note
        return put

    def _observe_get(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def get(self: Any, *args: Any, **kwargs: Any) -> Any:
            item = original(self, *args, **kwargs)
            if switch.is_on:
                received(self, item)
            return item

        received = self._take
        return get

    def _note(self, where: Any, item: Any) -> deque[Any] | None:
        brought = self._carrier.sent()
        notes = self._notes.get(where)
        if notes is None:
            if brought is None:
                return None
            try:
                self._notes.put(where, notes := {})
            except TypeError:  # of a class that takes no weak references
                return None
        known = notes.get(id(item))
        if known is None:
            if brought is None:
                return None
            known = notes.setdefault(id(item), deque())
        known.append(brought)
        return known

    def _take(self, where: Any, item: Any) -> None:
        notes = self._notes.get(where)
        known = notes.get(id(item)) if notes is not None else None
        if notes is None or known is None:
            return
        try:
            brought = known.popleft()
        except IndexError:
            return
        if not known:
            notes.pop(id(item), None)
            if known:  # another thread was in between
                notes.setdefault(id(item), known)
        if brought is not None:
            self._carrier.received(brought)
