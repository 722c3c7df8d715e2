"""What a work item of a process pool takes with it, and what its worker process does around it.

The item travels as its pool packs it, with one more thing beside it: where it comes from, and when it was
handed in. The worker says what that means to an observer, runs the function as ever, with no frame of ours
beneath it, and sends two durations back beside the result. A worker without us ignores all of this.

Times are `time.monotonic_ns()` of both processes: one clock for a whole machine on Linux, macOS and Windows.
It says nothing between machines; no pool of the standard library reaches that far.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

KEY = "_otel_concurrency"
"""The attribute that we add to what travels."""

now_ns = time.monotonic_ns

Carrier = dict[str, str]
Parcel = tuple[Carrier, int, str]
"""Beside an item: its carrier, when it was handed in, and the name of its pool. Built-in types only."""

Timing = tuple[int, int]
"""Beside a result: how long the item was queued, and how long it ran; ns."""

End = Callable[[BaseException | None, str | None], None]
"""Takes what the item raised, and its traceback as text."""

_MACHINERY = ("concurrent.futures.", "multiprocessing.", "asyncio.", "otel_concurrency.hooks.")

_logger = logging.getLogger(__name__)


class Item(NamedTuple):
    """An item that is about to run, for the observer.

    Attributes:
        function: What will be called, as the pool has it.
        args: Its positional arguments.
        carrier: What was captured where it was handed in.
        pool: The name of its pool.
        kind: `process` or `mp_pool`.
        queue_ns: From being handed in to now.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    carrier: Carrier
    pool: str
    kind: str
    queue_ns: int


Observer = Callable[[Item], "End | None"]
"""Called before an item runs; what it returns is called after."""


class ItemsInWorker:
    """The items that this process runs as a worker: one after the other.

    Args:
        observer: Called around each item; what it raises is logged once and costs the program nothing.
    """

    def __init__(self, observer: Observer | None) -> None:
        self.observer = observer
        self._running: _Running | None = None
        self._has_failed = False

    def begin(
        self, key: object, parcel: Parcel | None, kind: str, function: Any, args: tuple[Any, ...]
    ) -> None:
        """Take note of the item that this process runs next.

        Args:
            key: Tells its result apart.
            parcel: What travelled beside it; None where whoever submitted it is not observed.
            kind: `process` or `mp_pool`.
            function: What will be called.
            args: Its positional arguments.
        """
        if parcel is None:
            self._running = None
            return
        carrier, submitted_ns, pool = parcel
        began_ns = now_ns()
        queue_ns = max(began_ns - submitted_ns, 0)
        self._running = running = _Running(key, queue_ns, began_ns)
        if self.observer is not None:
            try:
                running.end = self.observer(Item(function, args, carrier, pool, kind, queue_ns))
            except Exception:
                self._log_once()
            if running.end is not None:
                running.began_ns = now_ns()  # what the observer took is neither queue nor run time

    def end(self, key: object, error: BaseException | None, stacktrace: str | None) -> Timing | None:
        """Return what travels beside the result; the second call for an item says what the first did.

        A pool builds a second result where the first one cannot be pickled.
        """
        running = self._running
        if running is None or running.key != key:
            return None
        if running.run_ns < 0:
            running.run_ns = now_ns() - running.began_ns
            end, running.end = running.end, None
            if end is not None:
                try:
                    end(error, stacktrace)
                except Exception:
                    self._log_once()
        return running.queue_ns, running.run_ns

    def _log_once(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            _logger.exception("Observing a work item failed; the item itself is not affected")


class _Running:
    __slots__ = ("began_ns", "end", "key", "queue_ns", "run_ns")

    def __init__(self, key: object, queue_ns: int, began_ns: int) -> None:
        self.key = key
        self.queue_ns = queue_ns
        self.began_ns = began_ns
        self.run_ns = -1
        self.end: End | None = None


def transfer_ns(total_ns: int, timing: Timing | None) -> int | None:
    """Return what was neither queue nor run time: packing, unpacking, and the way; None if unknown."""
    return None if timing is None else max(total_ns - timing[0] - timing[1], 0)


def creation_site(pool: object) -> str:
    """Name a pool by who makes it, `module:line`: the first frame above that is not machinery."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if isinstance(module, str) and not f"{module}.".startswith(_MACHINERY):
            return f"{module}:{frame.f_lineno}"
        frame = frame.f_back
    return type(pool).__qualname__


class Fence:
    """Keeps our trouble ours: what raises in here is logged once, and counts as None.

    Args:
        what: What is observed, in words.
    """

    __slots__ = ("_has_failed", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._has_failed = False

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of ours."""
        try:
            return function(*args)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                _logger.exception("Observing %s failed; it is not affected itself", self._what)
            return None
