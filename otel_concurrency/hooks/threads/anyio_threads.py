"""Work items of AnyIO's worker threads: `anyio.to_thread.run_sync`, and so the plain functions of FastAPI.

All of them pass through `run_sync_in_worker_thread` of a backend (AnyIO 4, `anyio/_backends/_asyncio.py` and
`_trio.py`). It carries the context of each item to the thread by itself; here they are counted and timed.
AnyIO imports a backend when a loop first needs it, and never is it imported for our sake.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch
from otel_concurrency.hooks.threads.thread_limiters import DEFAULT, LIMITED, Limiters
from otel_concurrency.probes.work import PoolLevel, WorkProbe

_BACKENDS = {"anyio._backends._asyncio": "AsyncIOBackend", "anyio._backends._trio": "TrioBackend"}
_LIMITER_AT = 1  # its place among the arguments that may follow the function and its arguments

_logger = logging.getLogger(__name__)


class AnyIOThreadHook:
    """Counts what runs in AnyIO's worker threads, from the time that a backend of AnyIO's is imported.

    Args:
        probe: Gets two pools of kind `anyio`: one for the default limiters, one for all others.
    """

    def __init__(self, probe: WorkProbe) -> None:
        self._pools = {name: probe.pool(name, "anyio") for name in (DEFAULT, LIMITED)}
        self._limiters = Limiters("anyio")
        self._patches: list[Patch] = []
        self._undo: list[Callable[[], None]] = []
        self._has_failed = False

    def __repr__(self) -> str:
        state = self._patches or ("awaits its import" if self._undo else "removed")
        return f"<AnyIOThreadHook [{state}]>"

    def install(self) -> None:
        """Patch each backend, now or when it is imported; a second call changes nothing."""
        if not self._undo:
            self._undo = [
                self._limiters.clear_in_child(),
                *(when_imported(backend, self._join) for backend in _BACKENDS),
            ]

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

    def _join(self, module: ModuleType) -> None:
        backend = getattr(module, _BACKENDS[module.__name__], None)
        if hasattr(backend, "run_sync_in_worker_thread"):
            patch = Patch(backend, "run_sync_in_worker_thread", self._count)
            patch.install()
            self._patches.append(patch)
        else:
            _logger.debug("this AnyIO has other worker threads than we know; they are not counted")

    def _count(self, run: Callable[..., Any]) -> tuple[Any, Callable[[], None]]:
        original: Callable[..., Any] | None = getattr(run, "__func__", None)
        count: Callable[..., Callable[..., Any]] | None = self._counted

        @functools.wraps(run)
        def run_sync_in_worker_thread(
            cls: Any, func: Callable[..., Any], args: Any, *more: Any, **options: Any
        ) -> Any:
            if count is not None:
                func = count(cls, func, more, options)
            if original is None:  # somebody else's replacement, which is no class method
                return run(func, args, *more, **options)
            return original(cls, func, args, *more, **options)

        def silence() -> None:
            nonlocal count
            count = None

        return classmethod(run_sync_in_worker_thread), silence

    def _counted(
        self, backend: Any, func: Callable[..., Any], more: tuple[Any, ...], options: dict[str, Any]
    ) -> Callable[..., Any]:
        """Return what to run in the function's place; the function itself if we fail."""
        try:
            limiter = more[_LIMITER_AT] if len(more) > _LIMITER_AT else options.get("limiter")
            name = DEFAULT if limiter is None else LIMITED
            self._limiters.watch(limiter or backend.current_default_thread_limiter(), name)
            return self._pools[name].wrap(func)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                _logger.exception("work items of AnyIO's worker threads are not counted; said once")
            return func
