"""Where we attach to see how long asyncio's locks and semaphores are held; only where somebody asked for it.

Both ends are the application's own calls, so all of them pay, not only those that wait.
"""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched
from otel_concurrency.hooks.weak_ids import WeakIds
from otel_concurrency.probes.holds import HoldTimes
from otel_concurrency.probes.waits import KINDS, row_of

_HELD = {"lock": asyncio.Lock, "semaphore": asyncio.Semaphore}
_SEMAPHORE = KINDS.index("semaphore")
_Holder = tuple[object, int]


class HoldHook:
    """Tells how long each lock and each place of a semaphore was held, from its acquire to its release.

    A place of a semaphore is the one that the releasing task took; where it took none, the one that has been
    taken for the longest.

    Args:
        holds: Who is told.
        number: Returns the number of a lock's name.
    """

    def __init__(self, holds: HoldTimes, number: Callable[[object], int]) -> None:
        self._holds = holds
        self._number = number
        self._holders: WeakIds[list[_Holder]] = WeakIds()
        self._patches = Patches(
            [
                Patch(owner, name, switched(functools.partial(observe, KINDS.index(kind))))
                for kind, owner in _HELD.items()
                for name, observe in (("acquire", self._observe_acquire), ("release", self._observe_release))
            ]
        )

    def __repr__(self) -> str:
        return f"<HoldHook {self._patches}>"

    def install(self) -> None:
        """Patch; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put back what was there."""
        self._patches.remove()
        self._holders.clear()

    def holders(self, it: object) -> list[tuple[Any, int]]:
        """Return the tasks that have a lock, and since when; a task that is gone is None."""
        known = [*(self._holders.get(it) or ())]
        return [(who() if isinstance(who, weakref.ref) else who, since_ns) for who, since_ns in known]

    def _observe_acquire(
        self, kind: int, original: Callable[[Any], Awaitable[bool]], switch: Switch
    ) -> Callable[[Any], Awaitable[bool]]:
        holders, now_ns, is_shared = self._holders, time.monotonic_ns, kind == _SEMAPHORE

        @functools.wraps(original)
        async def acquire(self: Any) -> bool:
            taken = await original(self)
            if switch.is_on:
                known = holders.get(self)
                if known is None:
                    holders.put(self, known := [])
                known.append((_holder(is_shared), now_ns()))
            return taken

        return acquire

    def _observe_release(
        self, kind: int, original: Callable[[Any], None], switch: Switch
    ) -> Callable[[Any], None]:
        holders, observe, number = self._holders, self._holds.observe, self._number
        now_ns = time.monotonic_ns

        @functools.wraps(original)
        def release(self: Any) -> None:
            original(self)
            known = holders.get(self) if switch.is_on else None
            if known:
                _, since_ns = known.pop(_which(known) if len(known) > 1 else 0)
                observe(row_of(kind, number(self)), now_ns() - since_ns)

        return release


def _holder(is_shared: bool) -> object:
    try:
        task = asyncio.current_task()
        # Who died without a release is not to live on as the holder of a lock.
        return task if is_shared or task is None else weakref.ref(task)
    except (RuntimeError, TypeError):  # outside of any loop; a task of somebody's own
        return None


def _which(holders: list[_Holder]) -> int:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # outside of any loop
        return 0
    return next((place for place, (holder, _) in enumerate(holders) if holder is task), 0)
