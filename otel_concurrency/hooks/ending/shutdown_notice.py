"""That the program has been told to end, for those who ask whether it takes work.

SIGTERM's handler is the program's: it is called as before, and everybody sees it as the one that is set. Only
on the way to it is noted that the signal came. Handlers that are set in C, past `signal.signal`, are not
seen.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.patch import Patch

_told: tuple[int, str] = 0, ""  # by which process; a forked child begins anew


def note(reason: str) -> None:
    """The program is to end: the name of a signal, or `exit`."""
    global _told
    _told = os.getpid(), reason


def shutdown_reason() -> str:
    """Return why this process is about to end; empty while it is not."""
    pid, reason = _told
    return reason if pid == os.getpid() else ""


class ShutdownNotice:
    """Notes SIGTERM on its way to the program's handler."""

    def __init__(self) -> None:
        self._is_active = False
        self._patches = (
            Patch(signal, "signal", self._around_signal),
            Patch(signal, "getsignal", self._around_getsignal),
        )

    def __repr__(self) -> str:
        return f"<ShutdownNotice [{'installed' if self._is_active else 'removed'}]>"

    def install(self) -> None:
        """Note it from now on; a second call changes nothing. Not on Windows, where nobody sends it."""
        if self._is_active or sys.platform == "win32":
            return
        self._is_active = True
        for patch in self._patches:
            patch.install()
        self._set_again(lambda handler: handler)  # one that is set already goes the same way from now on

    def remove(self) -> None:
        """Let the signal go its way; off the main thread ours stays before the handler, and only calls it."""
        if not self._is_active:
            return
        self._is_active = False
        for patch in reversed(self._patches):
            patch.remove()
        self._set_again(_bare)

    @staticmethod
    def _set_again(change: Callable[[Any], Any]) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            try:
                signal.signal(signal.SIGTERM, change(handler))
            except ValueError:  # in another interpreter than the main one
                pass

    def _around_signal(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        @functools.wraps(original)
        def set_handler(signalnum: Any, handler: Any) -> Any:
            is_heard = signalnum == signal.SIGTERM and self._is_active and _is_handler(handler)
            return _bare(original(signalnum, _Heard(handler) if is_heard else handler))

        return set_handler, _nothing

    @staticmethod
    def _around_getsignal(original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        @functools.wraps(original)
        def getsignal(signalnum: Any) -> Any:
            return _bare(original(signalnum))

        return getsignal, _nothing


class _Heard:
    """A handler of the program's, with a note before it."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.handler = handler

    def __repr__(self) -> str:
        return repr(self.handler)

    def __call__(self, signum: int, frame: Any) -> Any:
        note(signal.Signals(signum).name)
        return self.handler(signum, frame)


def _is_handler(handler: object) -> bool:
    # SIG_DFL and SIG_IGN are members of an enumeration, or whole numbers.
    return callable(handler) and not isinstance(handler, (int, _Heard))


def _bare(handler: Any) -> Any:
    return handler.handler if isinstance(handler, _Heard) else handler


def _nothing() -> None:
    pass
