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
from functools import partial

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
_joined = 0  # how often; only the newest of Python's entries runs ours


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


def come_last() -> None:
    """Let all entries run after those that others have given to Python by now, in parent and child.

    Python's list grows with each call: for the rare moment at which something else is known to be there.
    """
    global _joined
    if hasattr(os, "register_at_fork"):
        _joined += 1
        os.register_at_fork(
            before=partial(_run, _before, _joined),
            after_in_parent=partial(_run, _parent, _joined),
            after_in_child=partial(_run, _child, _joined),
        )


def _join() -> None:
    if not _joined:
        come_last()


def _run(side: _Side, turn: int) -> None:
    if turn == _joined:
        side.run()
