"""Where we attach to `multiprocessing.Pool`, so that pickling and its errors stay the application's own.

A task travels as `(job, i, func, args, kwds)`, its result as `(job, i, outcome)`: a worker sends `job` back
as it came. While a task is on its way, `job` is a tuple of built-in types that begins with the number, and a
worker without us echoes it. Both ends of that are one pool's: the `_quick_put` and `_quick_get` that
`_setup_queues` makes, so that what they did is undone by them, whatever becomes of our patches. Pools made
before us are left alone.

The carrier is captured where `apply`, `map`, `imap`, `starmap` and their asynchronous forms make their result
object, on the submitter's thread: `ApplyResult.__init__` and `IMapIterator.__init__`. A chunk is one item, as
the pool has it. A `ThreadPool` item runs in a copy of its submitter's whole context.

A failure is seen where a result gets it, `ApplyResult._set`, and noticed if nobody looks, see unseen.py.

Leans on CPython `multiprocessing/pool.py`, 3.10 to 3.15.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.failures.unseen import Unseen, UnseenWatch
from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.processes.pool_ends import (
    KIND,
    Note,
    PoolEnds,
    ProcessPoolEnds,
    Results,
    Tasks,
    ThreadPoolEnds,
    unfinished,
)
from otel_concurrency.hooks.processes.worker_crashes import reason_of
from otel_concurrency.hooks.threads.pool_items import Fence, creation_site, now_ns
from otel_concurrency.probes.crossing import KEY, Carrier, Observer
from otel_concurrency.probes.work import PoolLevel, PoolProbe, WorkProbe

_ITEM = "executor_future"
_unseen = UnseenWatch(("get", "successful"))


class MultiprocessingPoolHook:
    """Gives every item of every `multiprocessing` pool its context, and counts and times it.

    Args:
        probe: Counts, in the submitting process.
        capture: Returns what the submitter's context has to carry.
        observer: Called around each item in the worker process.
        name: Names a pool.
        origin: Context variable whose value exemplars keep, and of the observer's contexts; see `Crossing`.
    """

    def __init__(
        self,
        probe: WorkProbe,
        *,
        capture: Callable[[], Carrier] = dict,
        observer: Observer | None = None,
        name: Callable[[Any], str] = creation_site,
        origin: ContextVar[Any] | None = None,
    ) -> None:
        self._probe = probe
        self._capture = capture
        self._name = name
        self._origin = origin
        # By the pool's `_outqueue`: what its threads and its finaliser are handed, unlike the pool itself.
        self._pools: weakref.WeakKeyDictionary[Any, PoolEnds] = weakref.WeakKeyDictionary()
        self._patches: list[Patch] = []
        self._forget: list[Callable[[], None]] = []
        self._is_active = False
        self._fence = Fence("a multiprocessing pool")
        self._in_worker = probe.crossing(observer, self._fence.log_once, context_var=origin)

    def __repr__(self) -> str:
        return f"<MultiprocessingPoolHook [{'installed' if self._is_active else 'removed'}] {self._patches}>"

    def install(self) -> None:
        """Patch the pool's classes, as soon as the program imports them; a second call changes nothing."""
        if not self._is_active:
            self._is_active = True
            self._forget = [
                fork.in_child(self._pools.clear),  # a copied pool has no threads: nobody can use it there
                when_imported("multiprocessing.pool", self._patch),
            ]

    def remove(self) -> None:
        """Put everything back, last first; items on their way arrive as they would without us."""
        self._is_active = False
        while self._forget:
            self._forget.pop()()
        while self._patches:
            self._patches.pop().remove()

    def levels(self) -> Iterator[PoolLevel]:
        """Tell how full each live pool is."""
        for ours in list(self._pools.values()):
            pool = ours.pool()
            if pool is not None and pool._state == "RUN":
                pending, workers = unfinished(pool._cache), len(pool._pool)
                active = min(pending, workers)
                yield PoolLevel(
                    ours.probe.name, KIND, active, workers - active, pool._processes, pending - active
                )

    def _patch(self, module: ModuleType) -> None:
        self._apply_result, self._map_result = module.ApplyResult, module.MapResult
        for owner, name, make in (
            (module, "worker", self._work),
            (module.Pool, "_maintain_pool", self._maintain),
            (module.Pool, "_terminate_pool", self._terminate),
            (module.Pool, "_check_running", self._check),
            (module.ApplyResult, "__init__", self._submit),
            (module.MapResult, "__init__", self._submit_chunks),
            (module.IMapIterator, "__init__", self._submit),
            (module.ApplyResult, "_set", self._end),
            (module.MapResult, "_set", self._end),
            (module.ThreadPool, "_setup_queues", self._set_up),
            (module.Pool, "_setup_queues", self._set_up),
        ):
            patch = Patch(owner, name, switched(make))
            patch.install()
            self._patches.append(patch)

    # In the submitting process.

    def _set_up(self, original: Callable[[Any], None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _setup_queues(pool: Any) -> None:
            original(pool)
            if switch.is_on:
                self._fence(self._adopt, pool)

        return _setup_queues

    def _adopt(self, pool: Any) -> None:
        is_of_processes = hasattr(pool._inqueue, "_writer")  # as `worker()` tells them apart
        kind = ProcessPoolEnds if is_of_processes else ThreadPoolEnds
        self._pools[pool._outqueue] = kind(pool, self._probe.pool(self._name(pool), KIND), self._fence)

    def _submit(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def __init__(result: Any, pool: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(result, pool, *args, **kwargs)
            if switch.is_on:
                self._fence(self._note, result, pool)

        return __init__

    def _submit_chunks(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def __init__(result: Any, pool: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(result, pool, *args, **kwargs)  # ends in ApplyResult's: the note is there
            if switch.is_on:
                self._fence(self._count_chunks, result, pool)

        return __init__

    def _note(self, result: Any, pool: Any) -> None:
        ours = self._pools.get(pool._outqueue)
        if ours is not None:
            origin = self._origin.get(None) if self._origin is not None else None
            note = ours.note(self._capture, origin)
            setattr(result, KEY, note)
            if type(ours) is ProcessPoolEnds and type(result).__name__ == "ApplyResult":
                note.submitted_ns = now_ns()
                ours.probe.submitted()

    def _count_chunks(self, result: Any, pool: Any) -> None:
        note: Note | None = getattr(result, KEY, None)
        ours = self._pools.get(pool._outqueue)
        if note is not None and type(ours) is ProcessPoolEnds:
            note.submitted_ns = now_ns()
            for _ in range(result._number_left):
                ours.probe.submitted()

    def _end(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _set(result: Any, i: int, outcome: Any) -> None:
            if switch.is_on and not outcome[0]:
                self._fence(self._watch_failed, result, outcome[1])
            original(result, i, outcome)

        return _set

    def _watch_failed(self, result: Any, error: BaseException) -> None:
        """Notice it if nobody looks at a failure; whoever waits for it, or has asked to be called, does."""
        ours = self._pools.get(result._pool._outqueue) if result._pool is not None else None
        if ours is None or result._error_callback or result._event._cond._waiters:
            return
        if type(result) in (self._apply_result, self._map_result):  # not failed before, and nobody's own
            note: Note | None = getattr(result, KEY, None)
            origin = None if note is None else note.origin
            _unseen.begin(result, Unseen(_ITEM, error, error.__traceback__, pool=ours.probe, origin=origin))

    def _check(self, original: Callable[[Any], None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _check_running(pool: Any) -> None:
            try:
                original(pool)
            except ValueError:
                is_submission = sys._getframe(1).f_code.co_name != "__enter__"
                ours = self._pools.get(pool._outqueue) if switch.is_on and is_submission else None
                if ours is not None:
                    ours.probe.rejected()
                raise

        return _check_running

    def _maintain(self, original: Callable[..., None], switch: Switch) -> Any:
        @functools.wraps(original)
        def _maintain_pool(
            ctx: Any, process: Any, processes: int, pool: list[Any], inqueue: Any, outqueue: Any, *args: Any
        ) -> None:
            before = pool[:]
            original(ctx, process, processes, pool, inqueue, outqueue, *args)
            ours = self._pools.get(outqueue) if switch.is_on else None
            if ours is not None:
                self._fence(_count_crashes, ours.probe, [worker for worker in before if worker not in pool])

        return staticmethod(_maintain_pool)

    def _terminate(self, original: Callable[..., None], switch: Switch) -> Any:
        function = getattr(original, "__func__", None)

        @functools.wraps(original)
        def _terminate_pool(cls: type, taskqueue: Any, inqueue: Any, outqueue: Any, *args: Any) -> None:
            ours = self._pools.get(outqueue) if switch.is_on else None
            if ours is not None:
                ours.probe.is_closing = True  # work of threads tells by itself when it is let go of
            if function is None:
                original(taskqueue, inqueue, outqueue, *args)
            else:
                function(cls, taskqueue, inqueue, outqueue, *args)
            if ours is not None:
                self._fence(ours.abandon, args[-1])

        return classmethod(_terminate_pool)

    # In the worker process.

    def _work(self, original: Callable[..., None], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def worker(inqueue: Any, outqueue: Any, *args: Any, **kwargs: Any) -> None:
            if switch.is_on and hasattr(inqueue, "_writer"):
                inqueue, outqueue = Tasks(inqueue, self._in_worker), Results(outqueue, self._in_worker)
            original(inqueue, outqueue, *args, **kwargs)

        return worker


def _count_crashes(probe: PoolProbe, gone: list[Any]) -> None:
    for worker in gone:
        if worker.exitcode:
            probe.crashed(reason_of(worker.exitcode))
