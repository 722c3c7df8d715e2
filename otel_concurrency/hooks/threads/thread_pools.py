"""Where work goes into a thread pool: `ThreadPoolExecutor.submit`, and `map`, `run_in_executor` and
`asyncio.to_thread` through it.

Each work item runs in a copy of the context that it was submitted in, the whole of it; the worker threads
have contexts of their own, which nobody's work ever sees. Leans on CPython `concurrent/futures/thread.py`:
`_thread_name_prefix`, `_threads`, `_idle_semaphore`, `_max_workers`, `_work_queue`, `_initializer_failed`.
`InterpreterPoolExecutor` (3.14) sends the function to another interpreter: it gets what was submitted.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol

from otel_concurrency.hooks.attaching import ATTACH, Attaching
from otel_concurrency.hooks.patch import Patch
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.work import PoolKind, PoolLevel, PoolProbe

POOL_KEY = "_otel_concurrency_pool"
"""Attribute of an executor with its pool probe, None where it is not measured; of a future likewise."""

NOT_MEASURED = ("opentelemetry.", "otel_concurrency.")
"""Pools made in these modules are the telemetry's own."""

_UNWRAPPED_KEY = "_otel_concurrency_unwrapped"  # of an executor whose work must arrive as it is
_MACHINERY = ("concurrent.futures.", "asyncio.", "otel_concurrency.hooks.")
_LOOPS = ("asyncio", "uvloop", "winloop")  # what event loops give their default executors
_UNNAMED = re.compile(r"ThreadPoolExecutor-\d+")
_DIGITS = re.compile(r"[-_ .]*\d+")

_logger = logging.getLogger(__name__)


class Pools(Protocol):
    """Whoever counts: a work probe."""

    def pool(self, name: str, kind: PoolKind) -> PoolProbe:
        """Return a new pool's probe."""
        ...


class ThreadPoolHook:
    """Leads every work item of every thread pool through its pool's probe.

    Args:
        pools: Counts.
        attaching: Where a copy of the context is not all.
    """

    def __init__(self, pools: Pools, attaching: Attaching | None = None) -> None:
        self._pools = pools
        self._attaching = attaching or Attaching()
        self._known: dict[int, weakref.ref[ThreadPoolExecutor]] = {}
        self._is_active = False
        self._patches = [
            Patch(ThreadPoolExecutor, "__init__", self._enrol_new),
            Patch(ThreadPoolExecutor, "submit", self._observe_submit),
            Patch(ThreadPoolExecutor, "shutdown", self._observe_shutdown),
            Patch(ThreadPoolExecutor, "_initializer_failed", self._observe_failed_initializer),
        ]

    def __repr__(self) -> str:
        return f"<ThreadPoolHook [{len(self._known)} pools] {self._patches}>"

    def install(self) -> None:
        """Patch `ThreadPoolExecutor`; a second call changes nothing."""
        self._is_active = True
        for patch in self._patches:
            patch.install()

    def remove(self) -> None:
        """Put everything back, last first, and forget all pools."""
        self._is_active = False
        for patch in reversed(self._patches):
            patch.remove()
        self.forget_pools()

    def forget_pools(self) -> None:
        """Begin without a pool, as a forked child must: those of the parent have no workers there."""
        for pool in self._alive():
            vars(pool).pop(POOL_KEY, None)
            vars(pool).pop(_UNWRAPPED_KEY, None)
        self._known.clear()

    def levels(self) -> list[PoolLevel]:
        """Tell how full each live pool is."""
        return [level for pool in self._alive() if (level := pool_level(pool)) is not None]

    def _alive(self) -> Iterator[ThreadPoolExecutor]:
        for reference in list(self._known.values()):
            pool = reference()
            if pool is not None:
                yield pool

    def _enrol(self, pool: ThreadPoolExecutor) -> PoolProbe | None:
        """Give a pool its probe; None if its work is not to be wrapped."""
        probe: PoolProbe | None = None
        try:
            module, line = _site(sys._getframe(1))
            if not f"{module}.".startswith(NOT_MEASURED):
                kind: PoolKind = "interpreter" if _is_interpreter_pool(pool) else "thread"
                probe = self._pools.pool(pool_name(pool._thread_name_prefix, f"{module}:{line}"), kind)
                key = id(pool)
                self._known[key] = weakref.ref(pool, lambda _: self._known.pop(key, None))
                if kind == "interpreter":
                    setattr(pool, _UNWRAPPED_KEY, probe)
                    probe = None
        except Exception:
            _logger.exception("A thread pool is not measured")
        setattr(pool, POOL_KEY, probe)
        return probe

    def _enrol_new(self, original: Callable[..., None]) -> tuple[Any, Callable[[], None]]:
        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(self, *args, **kwargs)
            if hook._is_active:
                hook._enrol(self)

        hook = self
        return __init__, lambda: None

    def _observe_submit(self, original: Callable[..., Any]) -> tuple[Any, Callable[[], None]]:
        @functools.wraps(original)
        def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if is_silent:
                return original(self, fn, *args, **kwargs)
            try:
                pool = self._otel_concurrency_pool
            except AttributeError:
                pool = hook._enrol(self)
            if pool is None:
                return _submit_unwrapped(original, self, fn, args, kwargs)
            if ATTACH in replaced:
                fn = attaching.bind(fn, args)
            work = pool.wrap(fn, copy_context())
            try:
                return original(self, work, *args, **kwargs)
            except BaseException:
                work.reject()
                raise

        hook, attaching = self, self._attaching
        replaced = attaching.replaced
        is_silent = False

        def silence() -> None:
            nonlocal is_silent
            is_silent = True

        return submit, silence

    def _observe_shutdown(self, original: Callable[..., None]) -> tuple[Any, Callable[[], None]]:
        @functools.wraps(original)
        def shutdown(self: Any, wait: bool = True, *, cancel_futures: bool = False) -> None:
            if cancel_futures:
                _close(self)
            original(self, wait, cancel_futures=cancel_futures)

        return shutdown, lambda: None

    def _observe_failed_initializer(self, original: Callable[..., None]) -> tuple[Any, Callable[[], None]]:
        @functools.wraps(original)
        def _initializer_failed(self: Any) -> None:
            pool = _close(self)
            if pool is not None:
                pool.crashed("BrokenThreadPool")
            original(self)

        return _initializer_failed, lambda: None


def pool_name(prefix: str | None, site: str) -> str:
    """Name a pool: its threads' prefix without digits, else where it was made; a loop's own is `asyncio`."""
    if prefix in _LOOPS:
        return "asyncio"
    if not prefix or _UNNAMED.fullmatch(prefix):
        return site
    return _DIGITS.sub("", prefix).strip("-_ .") or site


def pool_level(pool: Any) -> PoolLevel | None:
    """Tell how full a pool is; None for one that is not measured, is through, or is made otherwise."""
    probe = _probe_of(pool)
    try:
        return None if probe is None else _level(pool, probe)
    except (AttributeError, TypeError):  # a subclass with a queue or threads of its own kind
        return None


def _level(pool: Any, probe: PoolProbe) -> PoolLevel | None:
    workers = sum(thread.is_alive() for thread in list(pool._threads))
    queued = pool._work_queue.qsize()
    if pool._shutdown:
        if not workers:
            return None
        queued = max(0, queued - 1)  # what wakes the workers up to go
    # Before 3.12 a worker also counts as idle between two work items.
    idle = 0 if queued else min(pool._idle_semaphore._value, workers)
    kind = "interpreter" if _is_interpreter_pool(pool) else "thread"
    return PoolLevel(probe.name, kind, workers - idle, idle, pool._max_workers, queued)


def _close(pool: Any) -> PoolProbe | None:
    """Say that the pool gives up what it has queued."""
    probe = _probe_of(pool)
    if probe is not None:
        probe.is_closing = True
    return probe


def _probe_of(pool: Any) -> PoolProbe | None:
    kept: dict[str, PoolProbe | None] = vars(pool)
    return kept.get(POOL_KEY) or kept.get(_UNWRAPPED_KEY)


def _submit_unwrapped(submit: Callable[..., Any], executor: Any, fn: Any, args: Any, kwargs: Any) -> Any:
    """Submit what must arrive as it is, and hear from its future how it ended; nobody tells when it began."""
    pool: PoolProbe | None = vars(executor).get(_UNWRAPPED_KEY)
    if pool is None:
        return submit(executor, fn, *args, **kwargs)
    try:
        future = submit(executor, fn, *args, **kwargs)
    except BaseException:
        pool.rejected()
        raise
    pool.submitted()
    name = function_name(fn, args)

    def done(future: Any) -> None:
        error = None if future.cancelled() else future._exception
        pool.done(
            name,
            queue_ns=-1,
            run_ns=-1,
            error_type=None if error is None else type_name(type(error)),
            cancelled=future.cancelled(),
        )

    future.add_done_callback(done)
    return future


def _is_interpreter_pool(pool: object) -> bool:
    return any(base.__module__ == "concurrent.futures.interpreter" for base in type(pool).__mro__)


def _site(frame: Any) -> tuple[str, int]:
    """Return the module and the line that first called into the machinery."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not isinstance(module, str):
            module = ""
        if not f"{module}.".startswith(_MACHINERY):
            return module or "unknown", frame.f_lineno
        frame = frame.f_back
    return "unknown", 0
