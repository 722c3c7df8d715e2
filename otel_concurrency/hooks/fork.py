"""What happens on both sides of `os.fork()`, in the order in which it was asked for.

Python's own list (`os.register_at_fork`) only grows, and tells of a failing entry on standard error of an
innocent process. Here an entry can be taken back, and one that raises is logged and keeps nobody else from
its turn. The list is joined to Python's when the first entry comes: entries of others that were made before,
those of the OpenTelemetry SDK for instance, have run by the time ours do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

Callback = Callable[[], None]

_logger = logging.getLogger(__name__)


class _Side:
    """The entries of one side."""

    def __init__(self) -> None:
        self._callbacks: tuple[Callback, ...] = ()  # replaced, never changed: a fork may come at any time

    def add(self, callback: Callback) -> Callback:
        self._callbacks = (*self._callbacks, callback)
        return lambda: self._drop(callback)

    def _drop(self, callback: Callback) -> None:
        self._callbacks = tuple(each for each in self._callbacks if each is not callback)

    def run(self) -> None:
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                _logger.exception("%r failed at a fork", callback)


_before, _parent, _child = _Side(), _Side(), _Side()
_is_joined = False


def before_fork(callback: Callback) -> Callback:
    """Call this in the parent before each fork; returns what takes it back."""
    _join()
    return _before.add(callback)


def in_parent(callback: Callback) -> Callback:
    """Call this in the parent after each fork; returns what takes it back."""
    _join()
    return _parent.add(callback)


def in_child(callback: Callback) -> Callback:
    """Call this in each forked child, before the program goes on there; returns what takes it back.

    The child has one thread. A lock that another thread held at the fork stays locked for ever: make a new
    one. Children of children call it too.
    """
    _join()
    return _child.add(callback)


def _join() -> None:
    global _is_joined
    if not _is_joined and hasattr(os, "register_at_fork"):
        _is_joined = True
        os.register_at_fork(before=_before.run, after_in_parent=_parent.run, after_in_child=_child.run)
