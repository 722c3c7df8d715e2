"""The end of the process: what happens when the main thread is through, and at `os._exit`.

CPython joins the threads of the program between the two stages of `ExitHook`: `threading._shutdown` first
runs what was given to `threading._register_atexit` (last come, first served: so we come before
`concurrent.futures`), then joins; `atexit` follows, and from 3.12 on no thread can be started by then.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.patch import Patch

_logger = logging.getLogger(__name__)


class ExitHook:
    """Calls at the end of a process that ends in order.

    Args:
        at_end_of_main: Called when the main thread has nothing more to do; other threads may have.
        at_exit: Called when all threads of the program are through.
    """

    def __init__(self, at_end_of_main: Callable[[], object], at_exit: Callable[[], object]) -> None:
        self._at_end_of_main = at_end_of_main
        self._at_exit = at_exit
        self._is_installed = False
        self._is_known_to_threading = False

    def __repr__(self) -> str:
        return f"<ExitHook [{'installed' if self._is_installed else 'removed'}]>"

    def install(self) -> None:
        """Register; a second call changes nothing. What was registered with `atexit` before runs after us."""
        if self._is_installed:
            return
        self._is_installed = True
        atexit.register(self._exit)
        if not self._is_known_to_threading:
            register: Any = getattr(threading, "_register_atexit", None)
            if register is not None:
                try:
                    register(self._end_main)
                except RuntimeError:  # the main thread is through already
                    return
            self._is_known_to_threading = True

    def remove(self) -> None:
        """Do nothing at exit."""
        self._is_installed = False
        atexit.unregister(self._exit)

    def _end_main(self) -> None:
        if self._is_installed:  # `threading` forgets nobody
            _quietly(self._at_end_of_main)

    def _exit(self) -> None:
        _quietly(self._at_exit)


class ImmediateExitHook:
    """Calls before `os._exit` ends the process.

    Args:
        before: Called if `is_needed` says so; what it raises is kept back.
        is_needed: Must be quick, and hold no lock: a forked child that was made to call `exec` may ask.
    """

    def __init__(self, before: Callable[[], object], is_needed: Callable[[], bool]) -> None:
        self._before = before
        self._is_needed = is_needed
        self._patch = Patch(os, "_exit", self._around)

    def __repr__(self) -> str:
        return f"<ImmediateExitHook {self._patch}>"

    def install(self) -> None:
        """Patch `os._exit`; a second call changes nothing."""
        self._patch.install()

    def remove(self) -> None:
        """Put it back."""
        self._patch.remove()

    def _around(self, original: Callable[[int], Any]) -> tuple[Callable[[int], Any], Callable[[], None]]:
        is_active = True

        @functools.wraps(original)  # a target or a work item may be `os._exit`, pickled by its name
        def _exit(status: int) -> Any:
            if is_active:
                try:
                    if self._is_needed():
                        self._before()
                except BaseException:  # whoever calls this wants out
                    pass
            return original(status)

        def silence() -> None:
            nonlocal is_active
            is_active = False

        return _exit, silence


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except (Exception, KeyboardInterrupt):
        _logger.debug("%r failed at exit", call, exc_info=True)
