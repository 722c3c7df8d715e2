"""Where we attach to `multiprocessing.Pool`, so that pickling and its errors stay the application's own.

A task travels as `(job, i, func, args, kwds)`, its result as `(job, i, outcome)`: a worker sends `job` back
as it came. While a task is on its way, `job` is a tuple of built-in types that begins with the number, and a
worker without us echoes it. Both ends of that are one pool's: the `_quick_put` and `_quick_get` that
`_setup_queues` makes, so that what they did is undone by them, whatever becomes of our patches. Pools made
before us are left alone.

The carrier is captured where `apply`, `map`, `imap`, `starmap` and their asynchronous forms make their result
object, on the submitter's thread: `ApplyResult.__init__` and `IMapIterator.__init__`. A chunk is one item, as
the pool has it. A `ThreadPool` item runs in a copy of its submitter's whole context.

Leans on CPython `multiprocessing/pool.py`, 3.10 to 3.15.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.pool_items import (
    KEY,
    Carrier,
    Fence,
    ItemsInWorker,
    Observer,
    creation_site,
    now_ns,
    transfer_ns,
)
from otel_concurrency.hooks.worker_crashes import reason_of
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.work import PoolLevel, PoolProbe, WorkProbe

_KIND: Final = "mp_pool"


class MultiprocessingPoolHook:
    """Gives every item of every `multiprocessing` pool its context, and counts and times it.

    Args:
        probe: Counts, in the submitting process.
        capture: Returns what the submitter's context has to carry.
        observer: Called around each item in the worker process.
        name: Names a pool.
        origin: Context variable whose value exemplars keep.
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
        self._in_worker = ItemsInWorker(observer)
        # By the pool's `_outqueue`: what its threads and its finaliser are handed, unlike the pool itself.
        self._pools: weakref.WeakKeyDictionary[Any, _Pool] = weakref.WeakKeyDictionary()
        self._patches: list[Patch] = []
        self._forget: list[Callable[[], None]] = []
        self._is_active = False
        self._fence = Fence("a multiprocessing pool")

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
                pending, workers = _unfinished(pool._cache), len(pool._pool)
                active = min(pending, workers)
                yield PoolLevel(
                    ours.probe.name, _KIND, active, workers - active, pool._processes, pending - active
                )

    def _patch(self, module: ModuleType) -> None:
        for owner, name, make in (
            (module, "worker", self._work),
            (module.Pool, "_maintain_pool", self._maintain),
            (module.Pool, "_terminate_pool", self._terminate),
            (module.Pool, "_check_running", self._check),
            (module.ApplyResult, "__init__", self._submit),
            (module.MapResult, "__init__", self._submit_chunks),
            (module.IMapIterator, "__init__", self._submit),
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
        kind = _ProcessPool if is_of_processes else _ThreadPool
        self._pools[pool._outqueue] = kind(pool, self._probe.pool(self._name(pool), _KIND), self._fence)

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
            if type(ours) is _ProcessPool and type(result).__name__ == "ApplyResult":
                note.submitted_ns = now_ns()
                ours.probe.submitted()

    def _count_chunks(self, result: Any, pool: Any) -> None:
        note: _Note | None = getattr(result, KEY, None)
        ours = self._pools.get(pool._outqueue)
        if note is not None and type(ours) is _ProcessPool:
            note.submitted_ns = now_ns()
            for _ in range(result._number_left):
                ours.probe.submitted()

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
                inqueue, outqueue = _Tasks(inqueue, self._in_worker), _Results(outqueue, self._in_worker)
            original(inqueue, outqueue, *args, **kwargs)

        return worker


class _Note:
    """What one call of `apply`, `map`, `imap` or `starmap` notes for its items.

    Attributes:
        context: The submitter's carrier or, for threads, its whole context.
        submitted_ns: When its items were submitted; None where each one is when it is drawn.
        origin: For exemplars.
        sent: Items on their way; only the pool's task handler writes it.
        ended: Items that came back; only the pool's result handler writes it.
    """

    __slots__ = ("context", "ended", "origin", "sent", "submitted_ns")

    def __init__(self, context: Any, origin: object) -> None:
        self.context = context
        self.origin = origin
        self.submitted_ns: int | None = None
        self.sent = self.ended = 0


class _Pool:
    """One pool that was made under our eyes: what goes in and comes out of it.

    It holds the pool weakly: a pool that is dropped ends itself.
    """

    def __init__(self, pool: Any, probe: PoolProbe, fence: Fence) -> None:
        self.pool = weakref.ref(pool)
        self.probe = probe
        self.fence = fence
        self.cache: Mapping[int, Any] = {}

    def note(self, capture: Callable[[], Carrier], origin: object) -> _Note:
        """Return what the items of a call will need."""
        raise NotImplementedError

    def abandon(self, cache: Mapping[int, Any]) -> None:
        """Count what a terminated pool will never finish."""


class _ProcessPool(_Pool):
    """Wraps both ends of a pool's pipes, as tasks and results pass them in this process."""

    def __init__(self, pool: Any, probe: PoolProbe, fence: Fence) -> None:
        super().__init__(pool, probe, fence)
        self._send, self._receive = pool._quick_put, pool._quick_get
        pool._quick_put, pool._quick_get = self.put, self.get

    def note(self, capture: Callable[[], Carrier], origin: object) -> _Note:
        pool = self.pool()
        if pool is not None:
            self.cache = pool._cache
        return _Note(capture(), origin)

    def put(self, task: Any) -> None:
        """Send a task, with a parcel in the place of its number."""
        tag = None if task is None else self.fence(self._tag, task)
        if task is None or tag is None:
            self._send(task)
            return
        try:
            self._send((tag, *task[1:]))
        except Exception as error:
            self.fence(self._count, tag, None, error)
            raise

    def _tag(self, task: Any) -> tuple[Any, ...] | None:
        job, _, function, args, _ = task
        note: _Note | None = getattr(self.cache.get(job), KEY, None)
        if note is None or getattr(function, "__name__", "") == "_helper_reraises_exception":
            return None
        note.sent += 1
        submitted_ns = note.submitted_ns
        if submitted_ns is None:
            submitted_ns = now_ns()
            self.probe.submitted()
        return job, note.context, submitted_ns, self.probe.name, function_name(function, args)

    def get(self) -> Any:
        """Receive a result, with its number in the place of what came back."""
        answer = self._receive()
        if answer is None or type(answer[0]) is not tuple:
            return answer
        tag, i, outcome = answer
        timing = None
        if type(tag[0]) is tuple:  # from a worker that has us
            tag, *timing = tag
        self.fence(self._count, tag, timing, None if outcome[0] else outcome[1])
        return tag[0], i, outcome

    def _count(self, tag: Any, timing: Any, error: BaseException | None) -> None:
        job, _, submitted_ns, _, name = tag
        note: _Note | None = getattr(self.cache.get(job), KEY, None)
        if note is not None:
            note.ended += 1
        queue_ns, run_ns = timing or (-1, -1)
        self.probe.done(
            name,
            queue_ns=queue_ns,
            run_ns=run_ns,
            transfer_ns=transfer_ns(now_ns() - submitted_ns, timing),
            error_type=None if error is None else type_name(type(error)),
            origin=None if note is None else note.origin,
        )

    def abandon(self, cache: Mapping[int, Any]) -> None:
        count = _unfinished(cache)
        if count:
            self.probe.abandoned(count)


class _ThreadPool(_Pool):
    """Wraps the function of each task, as it passes from one thread to others."""

    def __init__(self, pool: Any, probe: PoolProbe, fence: Fence) -> None:
        super().__init__(pool, probe, fence)
        self._send = pool._quick_put
        pool._quick_put = self.put

    def note(self, capture: Callable[[], Carrier], origin: object) -> _Note:
        pool = self.pool()
        if pool is not None:
            self.cache = pool._cache
        return _Note(contextvars.copy_context(), origin)

    def put(self, task: Any) -> None:
        """Hand a task on, its function wrapped."""
        wrapped = None if task is None else self.fence(self._wrap, task)
        self._send(wrapped or task)

    def _wrap(self, task: Any) -> Any:
        job, i, function, args, kwds = task
        note: _Note | None = getattr(self.cache.get(job), KEY, None)
        if note is None or getattr(function, "__name__", "") == "_helper_reraises_exception":
            return None
        # A context can be entered once at a time, and the chunks of one call run side by side.
        return job, i, self.probe.wrap(function, note.context.copy()), args, kwds


class _Tasks:
    """A worker's queue of tasks."""

    def __init__(self, queue: Any, items: ItemsInWorker) -> None:
        self._writer = queue._writer
        self._queue = queue
        self._items = items

    def get(self) -> Any:
        task = self._queue.get()
        if task is not None:
            job, i, function, args, _ = task
            parcel = job[1:4] if type(job) is tuple else None
            self._items.begin((job, i), parcel, _KIND, function, args)
        return task


class _Results:
    """A worker's queue of results."""

    def __init__(self, queue: Any, items: ItemsInWorker) -> None:
        self._reader = queue._reader
        self._queue = queue
        self._items = items

    def put(self, answer: Any) -> None:
        job, i, (has_succeeded, value) = answer
        error = None if has_succeeded else getattr(value, "exc", value)
        timing = self._items.end((job, i), error, None if error is None else getattr(value, "tb", None))
        self._queue.put(answer if timing is None else ((job, *timing), *answer[1:]))


def _unfinished(cache: Mapping[int, Any]) -> int:
    """Count items that were submitted and have not come back."""
    count = 0
    for result in list(cache.values()):
        note: _Note | None = getattr(result, KEY, None)
        if note is not None:
            left = note.sent - note.ended if note.submitted_ns is None else getattr(result, "_number_left", 1)
            count += max(left, 0)
    return count


def _count_crashes(probe: PoolProbe, gone: list[Any]) -> None:
    for worker in gone:
        if worker.exitcode:
            probe.crashed(reason_of(worker.exitcode))
