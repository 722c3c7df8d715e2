"""Waiting for a loop to stall: what a watching thread does nearly all the time.

The native wait (`native_source/watch.h`) looks at the loops without the GIL, so it may look often; the pure
one sleeps until it is time to look with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from otel_concurrency.probes.thread_clock import runqueue_ns


class Watched(NamedTuple):
    """One run of a loop, as a watch needs to know it.

    Attributes:
        timer: Its timer.
        cpu_clock: Of the thread that runs it, as `thread_clock.clock_of_this_thread` returns it.
        native_id: Of that thread.
    """

    timer: Any
    cpu_clock: int | None
    native_id: int


class Seen(NamedTuple):
    """What a wait has seen of a loop's last iteration; in ns, -1 where nobody can tell.

    Attributes:
        age_ns: How long it had lasted when it was first seen.
        cpu_ns: CPU time of its thread then.
        runqueue_ns: Time without a CPU of its thread then.
        kept_ns: CPU time that its thread took while the one who watches waited for the GIL.
        is_on: Whether that iteration is the present one.
    """

    age_ns: int = -1
    cpu_ns: int = -1
    runqueue_ns: int = -1
    kept_ns: int = -1
    is_on: bool = False


UNSEEN = Seen()


class Wake(NamedTuple):
    """Why a wait ended.

    Attributes:
        loop: Index of the loop whose iteration has lasted too long; -1: none that could be seen.
        was_rung: Whether somebody rang the bell.
        seen: What it has seen of each loop.
        gil_ns: For how long this thread then waited for the GIL; -1 where it was not measured.
        overshoot_ns: How late the wait ended, where `gil_ns` is not known; else -1.
        delay_ns: How much of that the kernel had no CPU for this thread.
    """

    loop: int
    was_rung: bool
    seen: tuple[Seen, ...]
    gil_ns: int
    overshoot_ns: int = -1
    delay_ns: int = 0


class Watch(Protocol):
    """Lets one thread wait, and others end its wait."""

    sees_stalls: bool
    """Whether a wait ends when a loop stalls; else it is for the one who waits to look often."""

    def wait(self, loops: Sequence[Watched], timeout_ns: int, poll_ns: int, threshold_ns: int) -> Wake:
        """Wait until an iteration has lasted for `threshold_ns`, the bell was rung, or the time is over."""
        ...

    def ring(self) -> None:
        """End the wait under way, or the next one; from any thread."""
        ...


class PureWatch:
    """The pure twin: waits, and sees nothing."""

    sees_stalls = False

    def __init__(self) -> None:
        self._bell = threading.Lock()
        self._bell.acquire()

    def wait(self, loops: Sequence[Watched], timeout_ns: int, poll_ns: int, threshold_ns: int) -> Wake:
        """Wait until the bell was rung, or the time is over."""
        native_id = threading.get_native_id()
        before_ns = runqueue_ns(native_id) or 0
        ends_ns = time.monotonic_ns() + timeout_ns
        rung = self._bell.acquire(timeout=timeout_ns / 1e9)
        late_ns = time.monotonic_ns() - ends_ns
        delay_ns = (runqueue_ns(native_id) or 0) - before_ns
        return Wake(-1, rung, (UNSEEN,) * len(loops), -1, -1 if rung else late_ns, delay_ns)

    def ring(self) -> None:
        """End the wait under way, or the next one; from any thread."""
        try:
            self._bell.release()
        except RuntimeError:  # rung already
            pass


def make_watch(*, native: bool = True) -> Watch:
    """Return the native watch where it is built and wanted, else the pure twin."""
    if native:
        try:
            from otel_concurrency.probes.native_watch import NativeWatch
        except ImportError:
            pass
        else:
            return NativeWatch()
    return PureWatch()
