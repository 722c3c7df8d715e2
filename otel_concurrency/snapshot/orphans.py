"""Tasks that nobody can wake: they wait for a future that is known to nobody but to those that wait for it.

Nothing is guessed. A future, the lock or whatever else it is in, and who has hold of these: if every
reference to each of them is accounted for, and all of them end in coroutines that wait for just this, then
there is no timer, no file descriptor, no thread and no task that could complete it. One reference more, and
nothing is said.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections import deque
from collections.abc import Iterable
from contextvars import Context
from types import FunctionType, ModuleType
from typing import Any

from otel_concurrency.snapshot.chains import Chains

MAX_DEPTH = 5
"""Steps from a coroutine's variables to what refers to the future."""

MAX_OBJECTS = 300
"""Objects looked at for one future."""

MAX_SIZE = 500
"""Items of a container that is looked into."""

_NOT_FOLLOWED = (type, ModuleType, FunctionType, Context, asyncio.AbstractEventLoop)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_PACKAGE = "otel_concurrency."


def is_orphaned(chains: Chains, task: Any, waiting: Iterable[tuple[Any, list[Any]]]) -> bool:
    """Tell whether nobody can complete the future that a task waits for.

    The caller is not to have any reference to what the task waits for.

    Args:
        chains: Walks.
        task: The one.
        waiting: All that wait for the same, each a task with its chain.
    """
    key = id(getattr(task, "_fut_waiter", None))
    roots: list[Any] = []
    for each, chain in waiting:
        roots.append(each)
        roots += [holder for link in chain if (holder := chains.holder(link)) is not None]
    inside, referrers = _surroundings(roots)
    is_root = {id(root) for root in roots}
    left, checked = [key], set()
    while left:
        key = left.pop()
        if key in checked or key in is_root:
            continue
        checked.add(key)
        known = referrers.get(key, [])
        if key not in inside or _references(inside, key) != len(known) or _is_known_weakly(inside[key]):
            return False
        left.extend(known)
    return True


def _surroundings(roots: list[Any]) -> tuple[dict[int, Any], dict[int, list[int]]]:
    """Return what is around these, by its id, and by whom each is referred to, as often as that is so.

    What is in the first is referred to once by us; nothing else of ours refers to it when this is over.
    """
    inside: dict[int, Any] = {}
    referrers: dict[int, list[int]] = {}
    asked: set[int] = set()
    layer = roots
    for _ in range(MAX_DEPTH):
        further = []
        for source in layer:
            if id(source) in asked or (type(source) in _CONTAINERS and len(source) > MAX_SIZE):
                continue
            asked.add(id(source))
            for target in gc.get_referents(source):
                referrers.setdefault(id(target), []).append(id(source))
                if id(target) not in inside and gc.is_tracked(target):
                    inside[id(target)] = target
                    if not isinstance(target, _NOT_FOLLOWED):
                        further.append(target)
            if len(inside) > MAX_OBJECTS:
                return inside, referrers
        layer = further
    return inside, referrers


def _references(inside: dict[int, Any], key: int) -> int:
    return sys.getrefcount(inside[key]) - _OURS


_SAMPLE = {0: object()}
_OURS = sys.getrefcount(_SAMPLE[0])


def _is_known_weakly(it: Any) -> bool:
    """Whether a program has a weak reference that leads here; ours are of classes of their own."""
    return any(not type(each).__module__.startswith(_PACKAGE) for each in weakref.getweakrefs(it))
