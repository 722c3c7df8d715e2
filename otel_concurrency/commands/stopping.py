"""How a command is told to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class StopRequest:
    """Ctrl-C, SIGTERM or a closed terminal, noted now and obeyed where `check` is called.

    Raising from the handler, as Python does by itself, can hit the moment between the start of a process and
    the note that it has to be stopped.
    """

    def __init__(self) -> None:
        self.is_made = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the command is to stop."""
        if self.is_made:
            raise KeyboardInterrupt

    def _make(self, number: int, frame: FrameType | None) -> None:
        self.is_made = True

    @contextlib.contextmanager
    def from_signals(self) -> Iterator[None]:
        """Note signals for as long as the block runs."""
        known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        heeded = [number for number in known if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
        before = {number: signal.signal(number, self._make) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
