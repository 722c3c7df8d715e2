"""The end of a child of `multiprocessing`, or of its twin `billiard` under Celery.

Such a child ends with `os._exit` and runs no `atexit` handlers (before CPython 3.13). It does run its
finalizers (`util._exit_function`), those with the lowest priority last; but it forgets the parent's at its
start (`BaseProcess._bootstrap`), and then calls what was given to `util.register_after_fork`. So that is
where the child registers its own. A worker of billiard's pool (`billiard/pool.py`, `Worker._do_exit`) skips
even these, and comes to `os._exit` alone.

The library is never imported for this: we hear when the program does, so a child registers nothing that its
parent has not. A spawned child ends like any other program, with `atexit`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.processes.helper_processes import package

LIBRARIES = ("multiprocessing.util", "billiard.util")
LAST = -100
"""Priority of the finalizer that exports: the child's own come first."""

SPAWNED = "--multiprocessing-fork"
"""An argument of each spawned child, see `multiprocessing/spawn.py`."""

_logger = logging.getLogger(__name__)


class ChildExitHook:
    """Calls in children of multiprocessing.

    Args:
        at_start: Called in the child before its work.
        at_exit: Called in the child when its work is done.
        priority: Finalizers with a higher one come before `at_exit`.
    """

    def __init__(
        self, at_start: Callable[[], object], at_exit: Callable[[], object], *, priority: int = LAST
    ) -> None:
        self._priority = priority
        self._at_start = at_start
        self._at_exit = at_exit
        self._known: list[Any] = []
        self._is_active = False
        self._forget: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<ChildExitHook [{'installed' if self._is_active else 'removed'}]>"

    def install(self) -> None:
        """Attach to the libraries, as soon as the program has them; a second call changes nothing."""
        if self._is_active:
            return
        self._is_active = True
        self._forget = [when_imported(name, self._register) for name in LIBRARIES]

    def remove(self) -> None:
        """Do nothing in children that start from now on."""
        self._is_active = False
        while self._forget:
            self._forget.pop()()

    def _register(self, util: ModuleType) -> None:
        register = getattr(util, "register_after_fork", None)
        if register is not None and register not in self._known:  # billiard may share multiprocessing's
            self._known.append(register)  # a fork of this process inherits what is registered
            register(self, ChildExitHook._begin_with(util))

    @staticmethod
    def _begin_with(util: Any) -> Callable[[ChildExitHook], None]:
        return lambda hook: hook._begin(util)

    def _begin(self, util: Any) -> None:
        if not self._is_active:
            return
        self._quietly(self._at_start)
        util.Finalize(None, self._finish, exitpriority=self._priority)

    def _finish(self) -> None:
        if self._is_active:
            self._quietly(self._at_exit)

    def _quietly(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            _logger.debug("%r failed in a child process", call, exc_info=True)


def is_child() -> bool:
    """Whether `multiprocessing` or `billiard` started this process."""
    return _is_begun_as_child() or any(each._parent_pid is not None for each in _current_processes())


def is_daemonic_child() -> bool:
    """Whether this process ends when its parent likes: a worker of `multiprocessing.Pool`, for instance.

    A child of a spawn or a forkserver that does not know yet what it will be counts as one.
    """
    module = sys.modules.get("multiprocessing.process")
    if _is_begun_as_child() and (module is None or module.parent_process() is None):
        return True
    return any(each.daemon for each in _current_processes())


def _is_begun_as_child() -> bool:
    return SPAWNED in sys.orig_argv or bool(package())


def _current_processes() -> list[Any]:
    modules = [sys.modules.get(f"{library}.process") for library in ("multiprocessing", "billiard")]
    return [module.current_process() for module in modules if module is not None]
