"""Where we attach to trio's locks and channels: `wait_task_rescheduled`, called by those that have to wait.

Locks, semaphores, conditions and limiters wait in `ParkingLot.park` (`trio/_core/_parking_lot.py`), events in
`Event.wait` (`trio/_sync.py`), memory channels in `send` and `receive` (`trio/_channel.py`). All else that
waits in trio calls it, too, so it is ours in these four functions alone. trio is never imported for our sake.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, Protocol

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.rebound import rebound, stand_in
from otel_concurrency.hooks.waits.wait_kinds import NOT_OURS, WaitKinds
from otel_concurrency.probes.waits import KINDS

_CALL = "wait_task_rescheduled"
_RUN = "trio._core._run"
_DECORATOR = "trio._core._ki"

_PLACES = (  # the class, the method, by which name this has the call, what it stands for by itself
    ("trio._core._parking_lot", "ParkingLot", "park", "_core", "condition"),
    ("trio._sync", "Event", "wait", "_core", "event"),
    ("trio._channel", "MemorySendChannel", "send", "trio", "queue_put"),
    ("trio._channel", "MemoryReceiveChannel", "receive", "trio", "queue_get"),
)
WAITING = {
    "trio._sync": (
        ("Lock.acquire", "lock"),
        ("Semaphore.acquire", "semaphore"),
        ("CapacityLimiter.acquire_on_behalf_of", "semaphore"),
        ("Condition.wait", "condition"),
    ),
    "trio._core._unbounded_queue": (("UnboundedQueue.get_batch", "queue_get"),),
    "trio._threads": (("to_thread_run_sync", NOT_OURS),),
    "trio._signals": (("SignalReceiver.__anext__", NOT_OURS),),
}

_logger = logging.getLogger(__name__)


class TrioWaits(Protocol):
    """What hears of those that wait."""

    @property
    def wait_begins(self) -> Callable[[int], bool]:
        """Counts a wait of the task that runs now, if its steps are seen."""
        ...

    def task_waits(self, task: Any, kind: int, /) -> None:
        """Count a wait of a task that lasts until its next step, where trio tells of that."""
        ...


class TrioWaitHook:
    """Tells of each task of trio that has to wait for another one, from the time that trio is imported.

    Args:
        waits: Who is told.
        kinds: Learns what those wait for that wait in a parking lot.
    """

    def __init__(self, waits: TrioWaits, kinds: WaitKinds) -> None:
        self._waits = waits
        self._kinds = kinds
        self._patches: list[Patch] = []
        self._stop_awaiting: Callable[[], None] | None = None
        self._has_failed = False

    def __repr__(self) -> str:
        state = self._patches or ("awaits its import" if self._stop_awaiting is not None else "removed")
        return f"<TrioWaitHook [{state}]>"

    def install(self) -> None:
        """Patch trio, now or when it is imported; a second call changes nothing."""
        if self._stop_awaiting is None:
            self._stop_awaiting = when_imported("trio", self._join)

    def remove(self) -> None:
        """Put everything back."""
        if self._stop_awaiting is not None:
            self._stop_awaiting()
            self._stop_awaiting = None
        while self._patches:
            self._patches.pop().remove()

    def _join(self, trio: ModuleType) -> None:
        for module, waiting in WAITING.items():
            self._kinds.learn(sys.modules.get(module), waiting)
        for module, owner, method, name, kind in _PLACES:
            self._observe(
                trio, getattr(sys.modules.get(module), owner, None), method, name, KINDS.index(kind)
            )

    def _observe(self, trio: Any, owner: Any, method: str, name: str, kind: int) -> None:
        function = vars(owner).get(method) if isinstance(owner, type) else None
        inner = _undecorated(function)
        if inner is None or not {name, _CALL} <= set(inner.__code__.co_names):
            _logger.debug("%r of this trio waits in another way than we know; nobody is told", owner)
            return

        def make(original: Any, switch: Switch) -> Any:
            call = self._told(trio.lowlevel, switch, kind)
            if name == "_core":
                module = stand_in(trio._core, _CALL, call)
            else:
                module = stand_in(trio, "lowlevel", stand_in(trio.lowlevel, _CALL, call))
            ours = rebound(inner, **{name: module})
            if inner is original:
                return ours
            return functools.update_wrapper(trio._core.enable_ki_protection(ours), original)

        patch = Patch(owner, method, switched(make))
        patch.install()
        self._patches.append(patch)

    def _told(self, lowlevel: Any, switch: Switch, kind: int) -> Callable[..., Any]:
        kind_in, frame, tell = self._kinds.kind, sys._getframe, self._tell

        def wait_task_rescheduled(*args: Any, **kwargs: Any) -> Any:
            if switch.is_on:
                known = kind_in(frame(1), kind)
                if known is not None:
                    tell(known)
            return lowlevel.wait_task_rescheduled(*args, **kwargs)

        return wait_task_rescheduled

    def _tell(self, kind: int) -> None:
        try:
            if not self._waits.wait_begins(kind):
                self._waits.task_waits(sys.modules[_RUN].GLOBAL_RUN_CONTEXT.task, kind)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                _logger.exception("a wait in trio is not counted; said once")


def _undecorated(function: Any) -> FunctionType | None:
    """Return the function that is run, which trio puts into another one, until 0.27."""
    if not isinstance(function, FunctionType):
        return None
    if function.__globals__.get("__name__") == _DECORATOR:
        function = getattr(function, "__wrapped__", None)
    return function if isinstance(function, FunctionType) else None
