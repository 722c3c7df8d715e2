"""What libuv itself counts of a loop, read through `ctypes`: time waiting, iterations, events.

Leans on libuv's stable interface (`uv.h`: `uv_loop_configure`, `uv_metrics_idle_time`, `uv_metrics_info`),
which uvloop's extension module exports on Linux and macOS.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

_METRICS_IDLE_TIME = 1  # of enum uv_loop_option
_METRICS_ROOM = 64  # uv_metrics_t is 16 numbers, of which the first two are these:
_LOOP_COUNT, _EVENTS = 0, 1


class Totals(NamedTuple):
    """Since the run began.

    Attributes:
        active_ns: Time outside of waiting for events.
        idle_ns: Time waiting for events.
        iterations: How often libuv looked for events.
        events: What it found.
    """

    active_ns: int
    idle_ns: int
    iterations: int
    events: int


class LibuvTotals:
    """One run of one loop; to be read, by any thread, only while it lasts.

    Args:
        loop: A capsule that points at its `uv_loop_t`.
        library: Path of the extension module that libuv is part of.

    Raises:
        OSError, AttributeError, ImportError, ValueError: Libuv cannot be asked here.
    """

    def __init__(self, loop: Any, library: str) -> None:
        import ctypes

        pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
            ("PyCapsule_GetPointer", ctypes.pythonapi)
        )
        # It keeps the GIL during calls: the run cannot end, nor the loop go, while somebody reads.
        libuv = ctypes.PyDLL(library)
        self._loop = ctypes.c_void_p(pointer_of(loop, None))
        self._idle_time = libuv.uv_metrics_idle_time
        self._idle_time.restype = ctypes.c_uint64
        self._info = libuv.uv_metrics_info
        self._metrics = ctypes.c_uint64 * _METRICS_ROOM
        if libuv.uv_loop_configure(self._loop, _METRICS_IDLE_TIME):
            raise ValueError("this libuv does not count idle time")
        self._began = self._now()

    def read(self) -> Totals:
        """Return what was counted up to now."""
        now, began = self._now(), self._began
        idle_ns = now[1] - began[1]
        return Totals(
            max(0, now[0] - began[0] - idle_ns), idle_ns, now[2] - began[2], max(0, now[3] - began[3])
        )

    def _now(self) -> tuple[int, int, int, int]:
        metrics = self._metrics()
        self._info(self._loop, metrics)
        # The clock second: a wait that goes on between the two is not told as more than has passed.
        idle_ns: int = self._idle_time(self._loop)
        return time.monotonic_ns(), idle_ns, metrics[_LOOP_COUNT], metrics[_EVENTS]
