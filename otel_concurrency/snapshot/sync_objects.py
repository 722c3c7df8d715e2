"""The locks and queues that tasks wait for, who waits for each, and who has it.

Who has a lock is told by what it has begun: `async with lock` keeps the lock's `__aexit__` at hand in the
coroutine until its end. A lock that is taken by `acquire()` alone tells nobody, but those of AnyIO and trio,
which know their owner, and those that a hook has watched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

from otel_concurrency.snapshot.chains import Chains
from otel_concurrency.snapshot.live import LiveLock, LiveQueue
from otel_concurrency.snapshot.sources import SOURCES

KINDS = frozenset(("lock", "semaphore", "condition", "event", "queue"))
"""Of waits that are for one of these."""

_EXITS = ("__aexit__", "__exit__")
_OWNERS = ("_owner_task", "_owner")  # AnyIO, trio
_STACKS = (contextlib.AsyncExitStack, contextlib.ExitStack)
_LOOKED_AT = 8
_ACQUIRES = ("Lock.acquire", "_LockImpl.acquire")


def awaited_object(chains: Chains, chain: list[Any]) -> Any:
    """Return the lock or queue that one who waits in such a chain waits for, or None.

    It is what the outermost of the innermost methods, all of one such class, is called on.
    """
    found, is_lock = None, False
    for each in list(reversed(chain))[:_LOOKED_AT]:
        owner = _owner_of_method(chains, each)
        if found is not None and (owner is None or is_lock):
            break
        if owner is not None:
            # Who comes back from a condition's wait wants its lock.
            found, is_lock = owner, chains.function(each)[1] in _ACQUIRES
    return found


def _owner_of_method(chains: Chains, awaitable: Any) -> Any:
    module, qualname = chains.function(awaitable)
    class_name = qualname.rpartition(".")[0]
    if not class_name or not module.startswith(_MODULES):
        return None
    for held in chains.held(awaitable):
        for kind in type(held).__mro__:
            if kind.__qualname__ == class_name and kind.__module__ == module:
                return held
    return None


_MODULES = ("asyncio.locks", "asyncio.queues", "anyio.", "trio.")


def exits_in(
    chains: Chains, chain: Iterable[Any], wanted: set[int], waits_for: str | None = None
) -> list[Any]:
    """Return the objects, by their ids, that somebody in a chain has entered and not left, one by one.

    Args:
        chains: Walks.
        chain: Of a task.
        wanted: Ids of locks.
        waits_for: The kind of the task's wait: for a condition, it has let go of the lock.
    """
    found = []

    def enter(it: Any) -> None:
        if id(it) in wanted:
            found.append(it)
        elif isinstance(it, asyncio.Condition) and waits_for != "condition" and id(it._lock) in wanted:  # type: ignore[attr-defined]
            found.append(it._lock)  # type: ignore[attr-defined]

    for awaitable in chain:
        before: Any = None
        for held in chains.held(awaitable):
            kind = type(held)
            if kind is MethodType:
                if held.__func__.__name__ in _EXITS:
                    enter(held.__self__)
            elif kind in _STACKS:
                callbacks: Any = getattr(held, "_exit_callbacks", ())
                for _, callback in list(callbacks):
                    if type(callback) is MethodType:
                        enter(callback.__self__)
            elif type(before) is FunctionType and before.__name__ in _EXITS:
                enter(held)  # from 3.14 on the two lie beside each other
            before = held
    return found


def is_entering(chains: Chains, chain: list[Any]) -> bool:
    """Whether a task waits in an `async with`, whose end it has at hand without having begun."""
    functions = (chains.function(each) for each in list(reversed(chain))[:_LOOKED_AT])
    return any(name.endswith(".__aenter__") and module.startswith(_MODULES) for module, name in functions)


def site_of(it: object) -> str:
    """Return where something was made, as far as somebody knows."""
    for site in SOURCES.sites:
        found = site(it)
        if found is not None:
            return found
    return ""


def known_owner(lock: Any) -> Any:
    """Return the task that a lock says is its owner, or None."""
    for name in _OWNERS:
        owner = getattr(lock, name, None)
        if owner is not None:
            return owner
    return None


def live_lock(
    lock: Any, kind: str, waiting: Iterable[int], holders: Iterable[int], held_s: float | None
) -> LiveLock:
    """Return what is known of a lock."""
    is_locked: bool | None = None
    try:
        if kind == "event":
            is_locked = not lock.is_set()
        elif kind in ("lock", "semaphore", "condition"):
            is_locked = bool(lock.locked())
    except Exception:  # nobody can tell
        pass
    return LiveLock(id(lock), kind, site_of(lock), is_locked, tuple(waiting), tuple(holders), held_s)


def live_queue(queue: Any) -> LiveQueue | None:
    """Return what is known of a queue of asyncio's; None for one that cannot tell."""
    try:
        size, limit = int(queue.qsize()), int(queue.maxsize)
    except Exception:  # of a subclass, in the middle of something
        return None
    return LiveQueue(
        id(queue),
        site_of(queue),
        size,
        limit if limit > 0 else None,
        len(getattr(queue, "_getters", ())),
        len(getattr(queue, "_putters", ())),
    )


def kind_of(it: object) -> str:
    """Return the kind of a lock that is known by name."""
    for owner, kind in (
        (asyncio.Lock, "lock"),
        (asyncio.Semaphore, "semaphore"),
        (asyncio.Condition, "condition"),
        (asyncio.Event, "event"),
        (asyncio.Queue, "queue"),
    ):
        if isinstance(it, owner):
            return kind
    return ""
