"""A thread of ours, which the program is not to stumble over.

A native one is started past `_thread` (`native_source/quiet_thread.h`), so `threading.enumerate()`,
`active_count()` and what CPython's own tests count do not have it; where that is not built, `threading` has
it, as a daemon. The kernel knows of both: at a fork it must be gone.
"""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections.abc import Callable

_BEGINS_WITHIN_S = 1.0

native_ids: frozenset[int] = frozenset()
"""Of those that run; replaced, never changed."""


class QuietThread:
    """One thread.

    Args:
        target: What it does.
        name: What `threading` is to call it, where it gets to know.
        native: Whether to start it past `threading`, where that is built.

    Attributes:
        native_id: Of the thread, once it runs; else 0.
    """

    def __init__(self, target: Callable[[], object], *, name: str, native: bool = True) -> None:
        self._target = target
        self._name = name
        self._start = _native_start() if native else None
        self._is_over = _thread.allocate_lock()
        self._has_begun = _thread.allocate_lock()
        self._has_begun.acquire()
        self.native_id = 0

    def __repr__(self) -> str:
        return f"<QuietThread {self._name} [{self.native_id or 'not started'}]>"

    def start(self) -> None:
        """Start it, and see it begin: whoever comes next may keep the GIL for long.

        Raises:
            RuntimeError: There is none to be had, any more.
        """
        self._is_over.acquire()
        try:
            if self._start is not None:
                self._start(self._run)
            else:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._is_over.release()
            raise
        self._has_begun.acquire(timeout=_BEGINS_WITHIN_S)

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended, and the kernel has let go of it; not in itself."""
        ends = time.monotonic() + timeout_s
        if self.native_id == threading.get_native_id() or not self._is_over.acquire(timeout=timeout_s):
            return
        self._is_over.release()
        path = f"/proc/self/task/{self.native_id}"
        while self.native_id and os.path.exists(path) and time.monotonic() < ends:
            time.sleep(0.0001)

    def _run(self) -> None:
        global native_ids
        native_id = self.native_id = threading.get_native_id()
        native_ids |= {native_id}
        self._has_begun.release()
        try:
            self._target()
        finally:
            native_ids -= {native_id}
            self._is_over.release()


def _native_start() -> Callable[[Callable[[], object]], None] | None:
    try:
        from otel_concurrency.probes._native import start_quiet_thread
    except ImportError:
        return None
    return start_quiet_thread
