"""Signals that come while a process forks: held back until the child can hear them.

In a forked child CPython forgets the signals that it has noted (`PyOS_AfterFork_Child`): they were its
parent's. One that was sent to the child itself before it came that far is forgotten with them. The default
action would have ended the child; a handler that stands in for it is never called, and whoever sent the
signal waits for ever. `with Pool()` does so if it ends soon after it has started its workers.

Blocked around the fork, the kernel keeps the signal: for the child, whose list is empty at first, as for the
parent. The parts of a fork run in one thread, and the mask is of that thread.
"""

from __future__ import annotations

import _thread
import os
import signal
from collections.abc import Callable, Iterable

Which = Callable[[], Iterable[int]]

_asked: tuple[Which, ...] = ()  # replaced, never changed: a fork may come at any time
_held: dict[int, set[int]] = {}  # by thread
_is_joined = False


def hold_at_forks(which: Which) -> Callable[[], None]:
    """Hold signals back at each fork from now on; returns what takes it back.

    Args:
        which: Asked before each fork for the signals to hold.
    """
    global _asked, _is_joined
    _asked = (*_asked, which)
    if not _is_joined:
        _is_joined = True
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_let_go_in_child)

    def take_back() -> None:
        global _asked
        _asked = tuple(each for each in _asked if each is not which)

    return take_back


def _hold() -> None:
    wanted = {each for which in _asked for each in which()}
    if wanted:
        # Noted first: a handler that raises may interrupt us anywhere, and what is blocked must come free.
        _held[_thread.get_ident()] = wanted.difference(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)


def _let_go() -> None:
    thread = _thread.get_ident()
    if thread in _held:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _held[thread])
        finally:
            _held.pop(thread, None)


def _let_go_in_child() -> None:
    try:
        _let_go()
    finally:
        _held.clear()  # what other threads hold they hold in the parent
