"""Lets a process end in silence although upstream's log handler cannot flush any more.

`LoggingHandler.flush` (`opentelemetry-instrumentation-logging`, 0.66b) starts a thread, which CPython 3.12
refuses once the interpreter is on its way out; `logging.shutdown` calls it there, and the refusal ends every
process with a traceback. By then the logger provider has flushed: its own exit handler runs before that of
`logging`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.patch import Patch


class LogFlushHook:
    """Keeps back a refused thread when upstream's log handler flushes."""

    def __init__(self) -> None:
        self._patch: Patch | None = None

    def __repr__(self) -> str:
        return f"<LogFlushHook {self._patch or '[removed]'}>"

    def install(self) -> None:
        """Patch the handler's class; an upstream that is built differently is left alone."""
        if self._patch is not None:
            return
        try:
            from opentelemetry.instrumentation.logging.handler import LoggingHandler
        except ImportError:
            return
        self._patch = Patch(LoggingHandler, "flush", _forgiving)
        self._patch.install()

    def remove(self) -> None:
        """Put the method back."""
        if self._patch is not None:
            self._patch.remove()
        self._patch = None


def _forgiving(original: Callable[[Any], None]) -> tuple[Callable[[Any], None], Callable[[], None]]:
    is_active = True

    def flush(self: Any) -> None:
        try:
            original(self)
        except RuntimeError:  # "can't create new thread at interpreter shutdown"
            if not is_active:
                raise

    def silence() -> None:
        nonlocal is_active
        is_active = False

    return flush, silence
