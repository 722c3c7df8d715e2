"""Feeds upstream's log handler without a place among the root logger's handlers.

`opentelemetry-instrumentation-logging` adds its handler to the root logger (0.66b). A program that never set
logging up then has a handler, and Python no longer does what it does without one: warnings and errors appear
nowhere (`logging.lastResort`), and `logging.warning()` sets nothing up. Here the handler is taken out of the
list, and each record that reaches the root logger's handlers is handed to it from `Logger.callHandlers`, so
whoever looks at the handlers, or puts others in their place, sees what would be there without us.

Leans on CPython `logging/__init__.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from otel_concurrency.hooks.failures.reported_logs import is_reported
from otel_concurrency.hooks.patch import Patch

CallHandlers = Callable[[logging.Logger, logging.LogRecord], None]


class LogHandlerHook:
    """Takes one handler out of the root logger's list, and goes on feeding it."""

    def __init__(self) -> None:
        self._handler: logging.Handler | None = None
        self._patch: Patch | None = None

    def __repr__(self) -> str:
        return f"<LogHandlerHook {self._patch or '[removed]'}>"

    def install(self, handler: logging.Handler | None) -> None:
        """Take the handler out; a second call, and a handler that is not in the list, change nothing."""
        if self._patch is None and handler is not None and handler in logging.root.handlers:
            self._handler = handler
            self._patch = Patch(logging.Logger, "callHandlers", self._feed)
            self._patch.install()
            logging.root.removeHandler(handler)

    def remove(self, *, put_back: bool) -> None:
        """Feed it no more.

        Args:
            put_back: Whether it gets its place in the list again; not if its instrumentor has let go of it.
        """
        if self._patch is not None:
            self._patch.remove()
            if put_back and self._handler is not None:
                logging.root.addHandler(self._handler)
        self._patch = self._handler = None

    def _feed(self, original: CallHandlers) -> tuple[CallHandlers, Callable[[], None]]:
        handler = self._handler

        def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
            try:
                original(self, record)
            finally:
                if (
                    handler is not None
                    and record.levelno >= handler.level
                    and not is_reported(record)
                    and _reaches_root(self)
                ):
                    try:
                        handler.handle(record)
                    except Exception:
                        handler.handleError(record)

        def silence() -> None:
            nonlocal handler
            handler = None

        return callHandlers, silence


def _reaches_root(logger: logging.Logger) -> bool:
    current: logging.Logger | None = logger
    while current is not None:
        if not current.propagate:
            return current.parent is None
        current = current.parent
    return True
