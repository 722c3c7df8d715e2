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
from typing import Any, Protocol

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


class Observer(Protocol):
    """Called before an item runs; what it returns is called after."""

    def __call__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        carrier: Carrier,
        pool: str,
        kind: str,
        queue_ns: int,
        /,
    ) -> End | None:
        """Take note of an item that is about to run.

        Args:
            function: What will be called, as the pool has it.
            args: Its positional arguments.
            carrier: What was captured where it was handed in.
            pool: The name of its pool.
            kind: `process` or `mp_pool`.
            queue_ns: From being handed in to now.
        """
        ...


class ItemsInWorker:
    """The items that this process runs as a worker: one after the other.

    Args:
        observer: Called around each item; what it raises is logged once and costs the program nothing.
    """

    def __init__(self, observer: Observer | None) -> None:
        self.observer = observer
        self._has_failed = False
        # The item that runs now, and its durations: a pool may build a second result of it.
        self._key: object = None
        self._began_ns = self._queue_ns = self._run_ns = 0
        self._end: End | None = None

    def begin(
        self, key: object, parcel: Parcel | None, kind: str, function: Any, args: tuple[Any, ...]
    ) -> None:
        """Take note of the item that this process runs next.

        Args:
            key: Tells its result apart; never None.
            parcel: What travelled beside it; None where whoever submitted it is not observed.
            kind: `process` or `mp_pool`.
            function: What will be called.
            args: Its positional arguments.
        """
        if parcel is None:
            self._key = None
            return
        began_ns = now_ns()
        carrier, submitted_ns, pool = parcel
        queue_ns = began_ns - submitted_ns if began_ns > submitted_ns else 0
        self._key, self._queue_ns, self._began_ns, self._run_ns = key, queue_ns, began_ns, -1
        self._end = None
        if self.observer is not None:
            try:
                self._end = self.observer(function, args, carrier, pool, kind, queue_ns)
            except Exception:
                self._log_once()
            if self._end is not None:
                self._began_ns = now_ns()  # what the observer took is neither queue nor run time

    def end(self, key: object, error: BaseException | None, stacktrace: str | None) -> Timing | None:
        """Return what travels beside the result; the second call for an item says what the first did.

        A pool builds a second result where the first one cannot be pickled.
        """
        if self._key != key:
            return None
        if self._run_ns < 0:
            self._run_ns = now_ns() - self._began_ns
            end = self._end
            if end is not None:
                self._end = None
                try:
                    end(error, stacktrace)
                except Exception:
                    self._log_once()
        return self._queue_ns, self._run_ns

    def _log_once(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            _logger.exception("Observing a work item failed; the item itself is not affected")


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
            self.log_once()
            return None

    def log_once(self) -> None:
        """Log what is being handled, if it is the first: for where calling the fence would cost too much."""
        if not self._has_failed:
            self._has_failed = True
            _logger.exception("Observing %s failed; it is not affected itself", self._what)
