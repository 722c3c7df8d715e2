"""Where we hear of what nobody handled: `call_exception_handler` of every event loop class.

Tasks and futures call it from `__del__`, so from a garbage collection wherever one runs: whoever listens
only takes a note.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.failures import reported_logs
from otel_concurrency.hooks.loops.loop_classes import LoopMethodPatches


class LoopExceptionHook:
    """Tells of every report to a loop's exception handler; the report goes on as before.

    Args:
        note: Called with the loop and the report; does not raise. Returns whether OpenTelemetry is told, and
            needs no log record that says the same.
    """

    def __init__(self, note: Callable[[Any, Any], object]) -> None:
        self._note = note
        self._patches = LoopMethodPatches(
            "call_exception_handler", self._observe, loss="exceptions that nobody handles are not counted"
        )

    def __repr__(self) -> str:
        return f"<LoopExceptionHook {self._patches}>"

    def install(self) -> None:
        """Patch all loop classes; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back, last first."""
        self._patches.remove()

    def _observe(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        note = self._note

        def call_exception_handler(self: Any, context: Any) -> Any:
            if not note(self, context):
                return original(self, context)
            before = reported_logs.begin(context.get("exception"))
            try:
                return original(self, context)
            finally:
                reported_logs.end(before)

        def silence() -> None:
            nonlocal note
            note = _ignore

        return functools.wraps(original)(call_exception_handler), silence


def _ignore(loop: Any, context: Any) -> None:
    pass
