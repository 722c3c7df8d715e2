"""The native watch as Python sees it."""

from __future__ import annotations

from collections.abc import Sequence

from otel_concurrency.probes import _native
from otel_concurrency.probes.native_loop_time import NativeLoopTimer
from otel_concurrency.probes.watch import UNSEEN, Seen, Wake, Watched


class NativeWatch:
    """Waits without the GIL, and looks at the loops meanwhile."""

    sees_stalls = True

    def __init__(self) -> None:
        self._native = _native.Watch()
        self.ring = self._native.ring

    def wait(self, loops: Sequence[Watched], timeout_ns: int, poll_ns: int, threshold_ns: int) -> Wake:
        """Wait until an iteration has lasted for `threshold_ns`, the bell was rung, or the time is over."""
        native = [
            (position, (each.timer.native, each.cpu_clock, each.native_id))
            for position, each in enumerate(loops)
            if isinstance(each.timer, NativeLoopTimer)
        ]
        found, was_rung, gil_ns, told = self._native.wait(
            tuple(watched for _, watched in native), timeout_ns, poll_ns, threshold_ns
        )
        seen = [UNSEEN] * len(loops)
        for (position, _), each in zip(native, told, strict=True):
            seen[position] = Seen._make(each)
        return Wake(native[found][0] if found >= 0 else -1, was_rung, tuple(seen), -1 if was_rung else gil_ns)
