"""The children of a forkserver: they run the program, and begin here what their forkserver has left out.

A forkserver forks for each child and hands it to `spawn._main` (CPython `multiprocessing/forkserver.py`,
`_serve_one`; billiard's is the same): signal handlers and the list of `atexit` are the child's own by then,
and no code of the program has run in it. Earlier, in the at-fork hooks, both would be taken away again.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.patch import Patch
from otel_concurrency.hooks.processes.helper_processes import is_forkserver, package

_logger = logging.getLogger(__name__)


class ForkserverHook:
    """Calls something in each child of this forkserver, before the child's work.

    Args:
        start: Called once in each child, with nothing; what it raises is logged, and the child goes on.
    """

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        self._patch: Patch | None = None

    def __repr__(self) -> str:
        return f"<ForkserverHook {self._patch}>"

    def install(self) -> None:
        """Wait for children; in any other process than a forkserver, do nothing."""
        if self._patch is None and is_forkserver():
            self._patch = Patch(importlib.import_module(f"{package()}.spawn"), "_main", self._started_first)
            self._patch.install()

    def remove(self) -> None:
        """Let children be as their forkserver is."""
        if self._patch is not None:
            self._patch.remove()
            self._patch = None

    def _started_first(self, original: Callable[..., Any]) -> tuple[Any, Callable[[], None]]:
        start: Callable[[], None] | None = self._start

        def _main(*args: Any, **kwargs: Any) -> Any:
            if start is not None and not is_forkserver():
                try:
                    start()
                except Exception:
                    _logger.exception("A child of the forkserver runs without instrumentation")
            return original(*args, **kwargs)

        def silence() -> None:
            nonlocal start
            start = None

        return _main, silence
