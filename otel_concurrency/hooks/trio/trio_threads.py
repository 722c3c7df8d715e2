"""Work items of trio's worker threads: `trio.to_thread.run_sync`, and so its files and paths.

trio carries the context of each item to the thread, and back with `trio.from_thread`, by itself
(`trio/_threads.py`); here they are counted and timed. AnyIO's items on trio pass through the same function,
and were counted by then (`hooks/threads/anyio_threads.py`). trio is never imported for our sake.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.threads.thread_limiters import DEFAULT, LIMITED, Limiters
from otel_concurrency.probes.work import PoolLevel, PoolProbe, WorkProbe

_NAME = "run_sync"
_PLACES = ("trio.to_thread", "trio._path")  # `trio.Path` has a name of its own for it
_ANYIO = "anyio._backends._trio"

_logger = logging.getLogger(__name__)


class TrioThreadHook:
    """Counts what runs in trio's worker threads, from the time that trio is imported.

    Args:
        probe: Gets two pools of kind `trio`: one for the default limiters, one for all others.
    """

    def __init__(self, probe: WorkProbe) -> None:
        self._probe = probe
        self._pools: dict[str, PoolProbe] = {}  # of their number there is a limit: only where there is trio
        self._limiters = Limiters("trio")
        self._patches: list[Patch] = []
        self._undo: list[Callable[[], None]] = []
        self._has_failed = False

    def __repr__(self) -> str:
        state = self._patches or ("awaits its import" if self._undo else "removed")
        return f"<TrioThreadHook [{state}]>"

    def install(self) -> None:
        """Patch trio, now or when it is imported; a second call changes nothing."""
        if not self._undo:
            self._undo = [self._limiters.clear_in_child(), when_imported("trio", self._join)]

    def remove(self) -> None:
        """Put the originals back; what is under way goes on, and is counted."""
        while self._undo:
            self._undo.pop()()
        while self._patches:
            self._patches.pop().remove()
        self._limiters.clear()

    def levels(self) -> list[PoolLevel]:
        """Return tokens borrowed, tokens there are, and tasks that wait for one, over all live limiters."""
        return self._limiters.levels()

    def _join(self, trio: ModuleType) -> None:
        self._pools = {name: self._probe.pool(name, "trio") for name in (DEFAULT, LIMITED)}
        for place in _PLACES:
            module = sys.modules.get(place)
            if inspect.iscoroutinefunction(getattr(module, _NAME, None)):
                patch = Patch(module, _NAME, switched(self._count))
                patch.install()
                self._patches.append(patch)
            else:
                _logger.debug("%s of this trio has no %s; its work items are not counted", place, _NAME)

    def _count(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        counted = self._counted

        @functools.wraps(original)
        def run_sync(*args: Any, **options: Any) -> Any:
            if switch.is_on and args and callable(args[0]):
                return original(counted(args[0], options.get("limiter")), *args[1:], **options)
            return original(*args, **options)

        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(run_sync)
        return run_sync

    def _counted(self, function: Callable[..., Any], limiter: Any) -> Callable[..., Any]:
        """Return what to run in the function's place; the function itself if we fail."""
        if getattr(function, "__module__", None) == _ANYIO:
            return function
        try:
            name = DEFAULT if limiter is None else LIMITED
            self._watch(limiter, name)
            return self._pools[name].wrap(function)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                _logger.exception("work items of trio's worker threads are not counted; said once")
            return function

    def _watch(self, limiter: Any, name: str) -> None:
        if limiter is None:
            try:
                limiter = sys.modules["trio"].to_thread.current_default_thread_limiter()
            except RuntimeError:  # called outside of a run, and awaited inside
                return
        if hasattr(limiter, "statistics"):  # trio asks for less
            self._limiters.watch(limiter, name)
