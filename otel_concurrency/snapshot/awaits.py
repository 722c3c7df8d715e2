"""Who a task waits for: the tasks themselves, as far as they can be found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from otel_concurrency.snapshot.census import TELLS_OF_SHIELD, callbacks_of
from otel_concurrency.snapshot.chains import Chains
from otel_concurrency.snapshot.live_tasks import WaitKind

_GATHERING = getattr(asyncio.tasks, "_GatheringFuture", ())
_MAX_LAYERS = 4


def awaited_tasks(chains: Chains, task: Any, chain: list[Any], kind: WaitKind) -> list[Any]:
    """Return the tasks without which a task does not go on, or not before one of them."""
    found = _in(getattr(task, "_fut_waiter", None), 0)
    if not found and kind in ("taskgroup", "wait", "timeout") and chain:
        found = [each for each in _held_tasks(chains, chain) if each is not task]
    if not found and chain and chains.function(chain[-1]) == ("asyncio.tasks", "wait_for"):
        found = [each for each in _held_tasks(chains, chain[-1:]) if each is not task]
    return [each for each in {id(each): each for each in found}.values() if not each.done()]


def _in(waiter: Any, layer: int) -> list[Any]:
    """Return the tasks that a future stands for."""
    if waiter is None or layer > _MAX_LAYERS:
        return []
    kind = type(waiter)
    if issubclass(kind, asyncio.Task):
        return [waiter]
    if issubclass(kind, _GATHERING):
        return [task for child in list(waiter._children) for task in _in(child, layer + 1)]
    for callback in callbacks_of(waiter):
        if type(callback) is FunctionType and callback.__name__ == TELLS_OF_SHIELD:
            return _in(_inner(callback), layer + 1)
    return []


def _inner(callback: FunctionType) -> Any:
    """Return what a `shield` is around."""
    for name, cell in zip(callback.__code__.co_freevars, callback.__closure__ or (), strict=False):
        if name == "inner":
            try:
                return cell.cell_contents
            except ValueError:
                return None
    return None


def _held_tasks(chains: Chains, chain: list[Any]) -> list[Any]:
    """Return the tasks that the innermost functions have in a variable, a set, or a task group."""
    for awaitable in reversed(chain[-4:]):
        found = []
        for held in chains.held(awaitable):
            if isinstance(held, asyncio.Task):
                found.append(held)
            elif type(held) in (set, frozenset):
                found += [each for each in tuple(held) if isinstance(each, asyncio.Task)]
            elif type(held).__name__ == "TaskGroup":  # asyncio's and AnyIO's
                found += [
                    each for each in tuple(getattr(held, "_tasks", ())) if isinstance(each, asyncio.Task)
                ]
        if found:
            return found
    return []


def creator(task: Any) -> str:
    """Return the name of the task that has created one, as far as its group tells."""
    for callback in callbacks_of(task):
        group = getattr(callback, "__self__", None)
        if type(group).__name__ == "TaskGroup":
            parent = getattr(group, "_parent_task", None) or getattr(group, "_host_task", None)
            if isinstance(parent, asyncio.Task):
                return parent.get_name()
    nursery = getattr(task, "parent_nursery", None)  # trio's
    parent = getattr(nursery, "parent_task", None)
    return str(parent.name) if parent is not None else ""


def has_timer(chains: Chains, chain: list[Any]) -> bool:
    """Whether somebody is going to end a wait: a timer that one of a chain has set, or a timeout."""
    for awaitable in chain:
        for held in chains.held(awaitable):
            kind = type(held)
            owner: Any = getattr(held, "__self__", None) if kind.__name__ == "method" else held
            name = type(owner).__name__
            if name == "TimerHandle" and not owner.cancelled():
                return True
            if name == "Timeout" and getattr(owner, "_timeout_handler", None) is not None:
                return True
            if name == "CancelScope" and _ends(owner):
                return True
    return False


def _ends(scope: Any) -> bool:
    """Whether a cancel scope of AnyIO or trio has a deadline."""
    try:
        return bool(scope.deadline != float("inf"))
    except Exception:  # of somebody else's
        return True


def awaited_by(task: Any) -> Iterator[Any]:
    """Go through the tasks that wait for one, where CPython keeps that (3.14)."""
    known = getattr(task, "_asyncio_awaited_by", None)
    if known is not None:
        yield from (each for each in tuple(known) if isinstance(each, asyncio.Task))
