"""Both ends of a `multiprocessing` pool's queues: what goes in, what comes out, and the same in a worker.

On its way a task has a tuple for a job number, `(job, carrier, submitted_ns, pool, function)`, which comes
back as one: with `(queue_ns, run_ns)` around it from a worker that has us, as it was from one that has not.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_concurrency.hooks.threads.pool_items import Fence, now_ns, transfer_ns
from otel_concurrency.probes.crossing import KEY, Carrier, Crossing
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.work import PoolProbe

KIND: Final = "mp_pool"


class Note:
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


class PoolEnds:
    """One pool that was made under our eyes: what goes in and comes out of it.

    It holds the pool weakly: a pool that is dropped ends itself. So it must not hold the pool's cache either:
    an item in there that never came back holds the pool, its threads and its processes.
    """

    def __init__(self, pool: Any, probe: PoolProbe, fence: Fence) -> None:
        self.pool = weakref.ref(pool)
        self.probe = probe
        self.fence = fence

    def note_of(self, job: int) -> Note | None:
        """Return what the call noted that an item on its way is of; None for a call that we did not see."""
        pool = self.pool()
        return None if pool is None else getattr(pool._cache.get(job), KEY, None)

    def note(self, capture: Callable[[], Carrier], origin: object) -> Note:
        """Return what the items of a call will need."""
        raise NotImplementedError

    def abandon(self, cache: Mapping[int, Any]) -> None:
        """Count what a terminated pool will never finish."""


class ProcessPoolEnds(PoolEnds):
    """Wraps both ends of a pool's pipes, as tasks and results pass them in this process."""

    def __init__(self, pool: Any, probe: PoolProbe, fence: Fence) -> None:
        super().__init__(pool, probe, fence)
        self._send, self._receive = pool._quick_put, pool._quick_get
        pool._quick_put, pool._quick_get = self.put, self.get

    def note(self, capture: Callable[[], Carrier], origin: object) -> Note:
        return Note(capture(), origin)

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
        note = self.note_of(job)
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
        note = self.note_of(job)
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
        count = unfinished(cache)
        if count:
            self.probe.abandoned(count)


class ThreadPoolEnds(PoolEnds):
    """Wraps the function of each task, as it passes from one thread to others."""

    def __init__(self, pool: Any, probe: PoolProbe, fence: Fence) -> None:
        super().__init__(pool, probe, fence)
        self._send = pool._quick_put
        pool._quick_put = self.put

    def note(self, capture: Callable[[], Carrier], origin: object) -> Note:
        return Note(contextvars.copy_context(), origin)

    def put(self, task: Any) -> None:
        """Hand a task on, its function wrapped."""
        wrapped = None if task is None else self.fence(self._wrap, task)
        self._send(wrapped or task)

    def _wrap(self, task: Any) -> Any:
        job, i, function, args, kwds = task
        note = self.note_of(job)
        if note is None or getattr(function, "__name__", "") == "_helper_reraises_exception":
            return None
        # A context can be entered once at a time, and the chunks of one call run side by side.
        return job, i, self.probe.wrap(function, note.context.copy()), args, kwds


class Tasks:
    """A worker's queue of tasks."""

    def __init__(self, queue: Any, items: Crossing) -> None:
        self._writer = queue._writer
        self._queue = queue
        self._items = items

    def get(self) -> Any:
        task = self._queue.get()
        if task is not None:
            job, i, function, args, _ = task
            parcel = job[1:4] if type(job) is tuple else None
            self._items.begin((job, i), parcel, KIND, function, args)
        return task


class Results:
    """A worker's queue of results."""

    def __init__(self, queue: Any, items: Crossing) -> None:
        self._reader = queue._reader
        self._queue = queue
        self._items = items

    def put(self, answer: Any) -> None:
        job, i, (has_succeeded, value) = answer
        error = None if has_succeeded else getattr(value, "exc", value)
        timing = self._items.end((job, i), error, None if error is None else getattr(value, "tb", None))
        self._items.finish()  # not later: a pool's own `__exit__` kills its workers as soon as it has this
        self._queue.put(answer if timing is None else ((job, *timing), *answer[1:]))


def unfinished(cache: Mapping[int, Any]) -> int:
    """Count items that were submitted and have not come back."""
    count = 0
    for result in list(cache.values()):
        note: Note | None = getattr(result, KEY, None)
        if note is not None:
            left = note.sent - note.ended if note.submitted_ns is None else getattr(result, "_number_left", 1)
            count += max(left, 0)
    return count
