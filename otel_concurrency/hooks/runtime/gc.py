"""Where we attach to the garbage collector: `gc.callbacks`, which it calls before and after each collection.

See "Garbage Collector interface" in Python's library reference, and `invoke_gc_callback` in CPython's
`Modules/gcmodule.c` (`Python/gc.c` from 3.14). A callback runs inside whatever was allocating, so in any
thread and with any lock held.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

Callback = Callable[[str, Mapping[str, int]], None]


class GcHook:
    """Has something called at the begin and the end of each collection.

    Args:
        callback: Gets the phase and what `gc` tells of it; only adds up numbers, and never raises.
    """

    def __init__(self, callback: Callback) -> None:
        self._callback = callback

    def __repr__(self) -> str:
        return f"<GcHook [{'installed' if self._callback in gc.callbacks else 'removed'}]>"

    def install(self) -> None:
        """Join the list; a second call changes nothing."""
        if self._callback not in gc.callbacks:
            gc.callbacks.append(self._callback)

    def remove(self) -> None:
        """Leave it."""
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)
