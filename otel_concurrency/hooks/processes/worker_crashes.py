"""How worker processes ended, as a reason to count by: `SIGKILL`, `exit 1`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

UNKNOWN = "unknown"


class Workers:
    """The workers of a pool that has just been found broken, before the pool ends the others.

    Args:
        processes: `multiprocessing` processes, dead ones and live ones.
    """

    def __init__(self, processes: Sequence[Any]) -> None:
        from multiprocessing.connection import wait

        dead = wait([process.sentinel for process in processes], timeout=0)
        self._dead = [process for process in processes if process.sentinel in dead]

    def tell(self, crashed: Callable[[str], None]) -> None:
        """Tell why each one died by itself, when all have been joined; `unknown` where none had."""
        for process in self._dead:
            crashed(reason_of(process.exitcode))
        if not self._dead:
            crashed(UNKNOWN)  # a result that could not be read back, for instance


def reason_of(exit_code: int | None) -> str:
    """Return the signal's name, or `exit` and the code."""
    if exit_code is None:
        return UNKNOWN
    if exit_code >= 0:
        return f"exit {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
