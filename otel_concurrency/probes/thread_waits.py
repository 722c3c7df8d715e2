"""What threads wait for of each other, as far as their frames tell.

`threading.Lock` and `RLock` are C and have no frame: who waits for one looks as if it ran what it runs. What
is built on them in Python shows: `Condition.wait`, and whoever called it (`threading.py`, `queue.py`).
"""

from __future__ import annotations

import inspect
import queue
import threading
from types import FrameType

_MAX_FRAMES = 6

# Where a thread stands still: its topmost frame is one of these.
_STANDING = (
    ("condition", threading.Condition, "wait"),
    ("condition", threading.Condition, "__enter__"),  # for its lock
    ("thread_join", threading.Thread, "_wait_for_tstate_lock"),  # until 3.12
    ("thread_join", threading.Thread, "join"),
    ("thread_join", threading, "_shutdown"),
)
# What calls these, one the other.
_AROUND = (
    ("condition", threading.Condition, "wait_for"),
    ("event", threading.Event, "wait"),
    ("semaphore", threading.Semaphore, "acquire"),
    ("barrier", threading.Barrier, "_enter"),
    ("barrier", threading.Barrier, "_wait"),
    ("barrier", threading.Barrier, "wait"),
    ("queue_get", queue.Queue, "get"),
    ("queue_put", queue.Queue, "put"),
    ("queue_join", queue.Queue, "join"),
)
_BY_NAME = {  # those of modules that nobody may have imported, by (module, function)
    ("concurrent.futures._base", "result"): "future",
    ("concurrent.futures._base", "exception"): "future",
    ("concurrent.futures._base", "wait"): "future",
    ("concurrent.futures._base", "as_completed"): "future",
    ("multiprocessing.pool", "wait"): "future",
    ("multiprocessing.pool", "get"): "future",
}


def waits_for(frame: FrameType | None) -> str | None:
    """Return what a thread waits for, by its topmost frame: the outermost of those that stand for something.

    Returns:
        None where that is nothing of another thread's, or cannot be told.
    """
    if frame is None or id(frame.f_code) not in _standing:
        return None
    found: str | None = None
    for _ in range(_MAX_FRAMES):
        if frame is None:
            break
        code = frame.f_code
        known = _types.get(id(code)) or _BY_NAME.get((frame.f_globals.get("__name__", ""), code.co_name))
        if known is None:
            break
        found, frame = known, frame.f_back
    return found if frame is None or id(frame.f_code) != _timer else None


def _codes(functions: tuple[tuple[str, object, str], ...]) -> dict[int, str]:
    """Return types by the identity of code, which lives as long as the module: hashing it takes longer."""
    return {
        id(inspect.unwrap(function).__code__): kind
        for kind, owner, name in functions
        if (function := vars(owner).get(name)) is not None
    }


_standing = _codes(_STANDING)
_types = _codes(_AROUND) | _standing
_timer = id(threading.Timer.run.__code__)  # it waits for its time
