"""Locks after a fork: one that another thread held stays held for ever in the child, so each is made anew."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.util._once import Once

_LOCK = type(threading.Lock())
_RLOCK = type(threading.RLock())


def renew_locks(part: Any) -> None:
    """Give an object, or a class, new locks and events in the place of those that it has.

    A `with` that is under way in this thread releases the lock that it took, the old one. Events stay set if
    they were, and whether a `Once` has run is kept.
    """
    for name, value in list(getattr(part, "__dict__", {}).items()):
        kind = type(value)
        if kind is _LOCK:
            setattr(part, name, threading.Lock())
        elif kind is _RLOCK:
            setattr(part, name, threading.RLock())
        elif kind is threading.Event:
            event = threading.Event()
            if value.is_set():
                event.set()
            setattr(part, name, event)
        elif kind is Once:
            renew_locks(value)
