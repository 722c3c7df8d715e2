"""Threads of the SDK in a forked child: they start with the first sign that the child has work of its own.

Many children of a fork have none: they replace themselves with another program, end at once, or want to be
alone in their process for a while (`unshare`, another fork). A thread would cost these some 0.1 ms and, in
the worst case, an error that they would not have without us.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol


class Waiting(Protocol):
    """What begins with the first sign of work."""

    def wake(self) -> None:
        """Begin, unless that has happened."""
        ...


_waiting: list[Waiting] = []


class LateThread(threading.Thread):
    """A thread that is started when it is needed, once.

    To wait for its end is to need it: what is told to finish its work must get the chance.
    """

    def __init__(self, target: Callable[[], Any], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._run_here: Callable[[], Any] | None = target
        self._waking = threading.Lock()
        self._is_woken = False

    def wake(self) -> None:
        """Start, unless that has happened."""
        if self._is_woken:
            return
        with self._waking:
            if not self._is_woken:
                self._is_woken = True
                try:
                    self.start()
                except RuntimeError:  # the interpreter is ending: `join` does the work
                    pass

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; where no thread can be started any more, do the rest of its work here."""
        self.wake()
        if self.ident is not None:
            super().join(timeout)
        elif self._run_here is not None:
            work, self._run_here = self._run_here, None
            work()


def forget_all() -> None:
    """Begin with none: in a forked child, those of the parent mean nothing."""
    _waiting.clear()


def add(thread: Waiting) -> None:
    """Let `wake_all` start a thread, or whatever else waits, too."""
    _waiting.append(thread)


def wake_all() -> None:
    """Start all that wait: this process has something to tell."""
    while _waiting:
        _waiting.pop().wake()
