"""What the hooks of pools share: the clock, the name of a pool, and a fence around what is ours."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from otel_concurrency.probes.crossing import Timing

now_ns = time.monotonic_ns

_MACHINERY = ("concurrent.futures.", "multiprocessing.", "asyncio.", "otel_concurrency.hooks.")

_logger = logging.getLogger(__name__)


def transfer_ns(total_ns: int, timing: Timing | None) -> int | None:
    """Return what was neither queue nor run time: packing, unpacking, and the way; None if unknown."""
    return None if timing is None else max(total_ns - timing[0] - timing[1], 0)


def creation_site(pool: object, machinery: tuple[str, ...] = _MACHINERY) -> str:
    """Name a pool by who makes it, `module:line`: the first frame above that is not machinery."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if isinstance(module, str) and not f"{module}.".startswith(machinery):
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

    def log_once(self, error: Exception | None = None) -> None:
        """Log an error, by default what is being handled, if it is the first: where a call costs too much."""
        if not self._has_failed:
            self._has_failed = True
            _logger.error(
                "Observing %s failed; it is not affected itself", self._what, exc_info=error or True
            )
