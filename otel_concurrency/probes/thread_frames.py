"""What the threads of this interpreter run, where CPython can tell without harm.

`sys._current_frames` does harm in three places. It goes through all interpreters of the process: from CPython
3.12 on these may have memory of their own, in which a frame object that we caused to be made for one of their
threads cannot be freed, and the process aborts (`_PyThread_CurrentFrames` in `Python/pystate.c`). In 3.11 it
may run the garbage collector while it holds a lock without which no thread begins or ends: a deadlock, until
3.11.9. Without a GIL, a frame that is looked at may be gone.
"""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType


def thread_frames() -> dict[int, FrameType]:
    """Return the topmost frame of every thread but this one, by `ident`; nothing where asking does harm."""
    if not _has_gil() or (_is_shared and len(_interpreters()) > 1):
        return {}
    pauses_gc = _is_311 and gc.isenabled()
    if pauses_gc:
        gc.disable()
    try:
        frames = sys._current_frames()
    finally:
        if pauses_gc:
            gc.enable()
    # With our own frame in it the dict would be part of a cycle: the program's frames, and all that their
    # variables hold, would stay until the garbage collector comes by.
    frames.pop(threading.get_ident(), None)
    return frames


_is_311 = sys.version_info[:2] == (3, 11)
_is_shared = sys.version_info >= (3, 12)  # the process, by interpreters that share no memory


def _has_gil() -> bool:
    is_enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)  # CPython 3.13
    return is_enabled is None or is_enabled()


def _lister() -> Callable[[], Sequence[object]]:
    for name in ("_interpreters", "_xxsubinterpreters"):  # CPython 3.13, 3.12
        try:
            found: Callable[[], Sequence[object]] = importlib.import_module(name).list_all
        except (ImportError, AttributeError):
            continue
        return found
    return list  # none can be made


_interpreters = _lister()
