"""Where we attach to the locks and streams of AnyIO, which are its own on asyncio.

Most of them wait for an `asyncio.Event` (on trio, a `trio.Event`): who looks there (`waits.py`,
`trio_waits.py`) learns here what it is for. `Lock.acquire` and `Semaphore.acquire` of
`anyio/_backends/_asyncio.py` (AnyIO 4.5 and later) make a future of their own when they have to wait: to
these two, `asyncio.Future` is ours. A wait for a thread is none for a lock: `anyio_threads.py` counts it.
The event of a socket or a task is of AnyIO's own making, and nobody in the program knows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.rebound import rebound, stand_in
from otel_concurrency.hooks.waits.wait_kinds import NOT_OURS, WaitKinds
from otel_concurrency.hooks.waits.waits import Waits
from otel_concurrency.probes.waits import KINDS

_ASYNCIO = "anyio._backends._asyncio"

WAITING = {
    "anyio._core._synchronization": (
        ("EventAdapter.wait", "event"),
        ("Lock.acquire", "lock"),  # until 4.4; LockAdapter and its like call those of a backend
        ("Semaphore.acquire", "semaphore"),
        ("Condition.wait", "condition"),
        ("CapacityLimiterAdapter.__aenter__", "semaphore"),
    ),
    "anyio._core._sockets": (("connect_tcp", NOT_OURS),),
    "anyio._core._tasks": (("TaskHandle.wait", NOT_OURS), ("TaskHandle.__await__", NOT_OURS)),
    "anyio._core._futures": (("Future.wait", NOT_OURS),),
    "anyio.streams.memory": (
        ("MemoryObjectReceiveStream.receive", "queue_get"),
        ("MemoryObjectSendStream.send", "queue_put"),
    ),
    _ASYNCIO: (
        ("Event.wait", "event"),
        ("CapacityLimiter.acquire_on_behalf_of", "semaphore"),
        ("CapacityLimiter.acquire", "semaphore"),
        ("CapacityLimiter.__aenter__", "semaphore"),
        ("AsyncIOBackend.run_sync_in_worker_thread", NOT_OURS),
        ("SocketStream.receive", NOT_OURS),
        ("SocketStream.send", NOT_OURS),
        ("UDPSocket.receive", NOT_OURS),
        ("UDPSocket.send", NOT_OURS),
        ("ConnectedUDPSocket.receive", NOT_OURS),
        ("ConnectedUDPSocket.send", NOT_OURS),
        ("AsyncIOBackend.wait_readable", NOT_OURS),
        ("AsyncIOBackend.wait_writable", NOT_OURS),
        ("AsyncIOBackend.wait_socket_readable", NOT_OURS),  # until 4.6
        ("AsyncIOBackend.wait_socket_writable", NOT_OURS),
        ("Process.wait", NOT_OURS),
    ),
    "anyio._backends._trio": (
        ("Event.wait", "event"),
        ("Lock.acquire", "lock"),
        ("Semaphore.acquire", "semaphore"),
        ("CapacityLimiter.acquire_on_behalf_of", "semaphore"),
    ),
}
_OWN_FUTURES = {"Lock": KINDS.index("lock"), "Semaphore": KINDS.index("semaphore")}

_logger = logging.getLogger(__name__)


class AnyIOWaitHook:
    """Tells of each task that has to wait for one of AnyIO's, from the time that these are imported.

    Args:
        waits: Who is told of what waits for a future.
        kinds: Learns what those wait for that wait for an event.
    """

    def __init__(self, waits: Waits, kinds: WaitKinds) -> None:
        self._waits = waits
        self._kinds = kinds
        self._patches: list[Patch] = []
        self._undo: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = self._patches or ("awaits its import" if self._undo else "removed")
        return f"<AnyIOWaitHook [{state}]>"

    def install(self) -> None:
        """Patch, now or when it is imported; a second call changes nothing."""
        if not self._undo:
            self._undo = [when_imported(module, self._join) for module in WAITING]

    def remove(self) -> None:
        """Put everything back."""
        while self._undo:
            self._undo.pop()()
        while self._patches:
            self._patches.pop().remove()

    def _join(self, module: ModuleType) -> None:
        self._kinds.learn(module, WAITING[module.__name__])
        if module.__name__ == _ASYNCIO:
            for name, kind in _OWN_FUTURES.items():
                self._observe(getattr(module, name, None), kind)

    def _observe(self, owner: Any, kind: int) -> None:
        acquire = vars(owner).get("acquire") if isinstance(owner, type) else None
        if isinstance(acquire, FunctionType) and {"asyncio", "Future"} <= set(acquire.__code__.co_names):
            patch = Patch(
                owner, "acquire", switched(lambda original, switch: self._told(original, switch, kind))
            )
            patch.install()
            self._patches.append(patch)
        else:
            _logger.debug("%r of this AnyIO waits for no future of its own", owner)

    def _told(self, original: FunctionType, switch: Switch, kind: int) -> FunctionType:
        wait_begins, wait_for = self._waits.wait_begins, self._waits.wait_for

        def future(*args: Any, **kwargs: Any) -> asyncio.Future[Any]:
            made: asyncio.Future[Any] = asyncio.Future(*args, **kwargs)
            if switch.is_on and not wait_begins(kind):
                wait_for(made, kind)
            return made

        return rebound(original, asyncio=stand_in(asyncio, "Future", future))
