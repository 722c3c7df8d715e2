"""What Python itself has given up on, noted where that shows: in a hook, a finaliser, a garbage collection.

Noting takes no lock, calls nothing of OpenTelemetry, and keeps neither the exception nor its frames: what is
told of them is text by then. Whoever listens takes the notes from the queue, at once or from another thread.
"""

from __future__ import annotations

import concurrent.futures.thread as _thread_pools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any

from otel_concurrency.hooks.failures.raised import NOWHERE, Place, message_of, place_of, stack_of
from otel_concurrency.probes.collections_now import CollectionsNow
from otel_concurrency.probes.event_counts import EventCounts
from otel_concurrency.probes.pure import type_name
from otel_concurrency.probes.rate_limit import RateLimit

MAX_QUEUED = 200
"""Notes that wait to be told, the newest ones; the rate limit lets fewer through in 10 s."""

MAX_HANDED_ON = 100
"""Exceptions whose context is remembered while they go on from a pool; with more, all are forgotten."""

ENDINGS = (KeyboardInterrupt, SystemExit)
"""How somebody ends a program: no failures."""

Kind = str
Listener = Callable[[bool], None]
"""Told that there is a note, and whether this is a place where anything may be done."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A note of a failure.

    Attributes:
        kind: What Python gave up on, see `signals/names.py`.
        error_type: Qualified type of what was raised, empty where nothing was.
        message: What it says.
        stack: Its traceback as text, or empty.
        place: Where it was raised.
        origin: The value that the origin variable had where the work was created; None where nobody knows.
        carrier: Where the work came from, as text, in the place of `origin`; None for nothing.
        task: Name of the asyncio task, or empty.
        coroutine: `module.qualname` of that task's coroutine, or empty.
        thread_ident: The thread that the work ran in, as far as that is known; else that which noticed.
        thread_name: The name of that thread, or empty.
        pid: The process.
        pool: The pool's name, or empty.
        at_unix_ns: When it was noted.
        left_out: Like failures since the last one that was told.
    """

    kind: Kind
    error_type: str
    message: str
    stack: str
    place: Place
    origin: object
    carrier: Mapping[str, str] | None
    task: str
    coroutine: str
    thread_ident: int
    thread_name: str
    pid: int
    pool: str
    at_unix_ns: int
    left_out: int


class Failures:
    """Takes notes while somebody listens.

    Args:
        clock: Wall-clock time, ns since the epoch.

    Attributes:
        counts: Totals by kind and type of the exception.
        collections: Whether a collection is going on; for `gc.callbacks`.
        lost: Failures that could not be noted.
    """

    def __init__(self, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._listener: Listener | None = None
        self._origin: ContextVar[Any] | None = None
        self._limit = RateLimit()
        self._handed_on: dict[int, object] = {}
        self._queue: deque[Failure] = deque(maxlen=MAX_QUEUED)
        self.counts = EventCounts()
        self.collections = CollectionsNow()
        self.lost = 0

    def __repr__(self) -> str:
        state = "off" if self._listener is None else f"{len(self._queue)} queued"
        return f"<Failures [{state}]>"

    def listen(
        self, listener: Listener, *, origin: ContextVar[Any] | None = None, max_error_types: int = 50
    ) -> None:
        """Begin to take notes.

        Args:
            listener: Called with each note; must not raise.
            origin: Context variable whose value notes keep.
            max_error_types: Exception type names counted apart, then `_other`.
        """
        self.counts = EventCounts(max_names=max_error_types)
        self._origin = origin
        self._listener = listener

    def stop(self) -> None:
        """Take no more notes, and forget those that nobody took."""
        self._listener = None
        self._queue.clear()
        self._handed_on.clear()
        self._limit.reset()

    def reset(self) -> None:
        """Begin anew in a forked child: what is noted is the parent's to tell."""
        self._queue.clear()
        self._handed_on.clear()
        self._limit.reset()
        self.counts.reset()
        self.lost = 0

    def take(self) -> Failure | None:
        """Return the oldest note that nobody took; None: there is none."""
        try:
            return self._queue.popleft()
        except IndexError:  # also where two take at once
            return None

    def note(
        self,
        kind: Kind,
        error: BaseException | None,
        *,
        origin: object = None,
        context: Context | None = None,
        is_here: bool = False,
        may_act: bool = False,
        message: str = "",
        place: Place = NOWHERE,
        task: str = "",
        coroutine: str = "",
        thread_ident: int | None = None,
        pool: str = "",
        carrier: Mapping[str, str] | None = None,
    ) -> bool:
        """Note a failure; never raises.

        Args:
            kind: What Python gave up on.
            error: What was raised, if anything; not kept.
            origin: What the origin variable had where the work was created, if somebody has kept that.
            context: Where the work was created, else.
            is_here: Whether it was created in the current context, if no collection brought us here.
            may_act: Whether this is a place where anything may be done.
            message: In the place of the exception's own.
            place: In the place of where it was raised.
            task: Name of the asyncio task.
            coroutine: Name of its coroutine function.
            thread_ident: The thread that it ran in; by default this one.
            pool: Name of its pool.
            carrier: Where it comes from, as text.

        Returns:
            Whether it counts: somebody listens, and it is a failure.
        """
        listener = self._listener
        if listener is None or isinstance(error, ENDINGS):
            return False
        try:
            error_type = "" if error is None else type_name(type(error))
            self.counts.add(kind, error_type)
            if error is not None and place is NOWHERE:
                place = place_of(error)
            now_ns = self._clock()
            left_out = self._limit.admit((kind, error_type, place.file, place.line), now_ns)
            if left_out is None:
                return True
            ident = thread_ident or threading.get_ident()
            self._queue.append(
                Failure(
                    kind=kind,
                    error_type=error_type,
                    message=message or ("" if error is None else message_of(error)),
                    stack="" if error is None else stack_of(error),
                    place=place,
                    origin=origin or self._origin_of(error, context, is_here),
                    carrier=carrier,
                    task=task,
                    coroutine=coroutine,
                    thread_ident=ident,
                    # `threading.current_thread()` would register a dummy, for good.
                    thread_name=getattr(threading._active.get(ident), "name", ""),  # type: ignore[attr-defined]
                    pid=os.getpid(),
                    pool=pool,
                    at_unix_ns=now_ns,
                    left_out=left_out,
                )
            )
            listener(may_act and not self.collections.is_here())
        except Exception:  # at the end of the interpreter nothing is certain
            self.lost += 1
            return False
        return True

    def origin_here(self) -> object:
        """Return the origin in the current context; None where that is a collection's, and so anybody's."""
        return None if self._origin is None or self.collections.is_here() else self._origin.get(None)

    def origin_in(self, context: Context) -> object:
        """Return the origin in a context; None where it has none."""
        return None if self._origin is None else context.get(self._origin)

    def hand_on(self, error: BaseException, context: Context | None) -> None:
        """Remember in which context a pool's work item has failed, while its exception goes on to others.

        An event loop's future that gets it knows no context, and may be let go of unseen.
        """
        if context is not None and self._origin is not None:
            if len(self._handed_on) >= MAX_HANDED_ON:
                self._handed_on.clear()
            self._handed_on[id(error)] = context.get(self._origin)
        elif self._handed_on:
            self._handed_on.pop(id(error), None)  # another one that had the same place in memory

    def _handed_on_with(self, error: BaseException | None) -> object:
        """Return what is remembered of this very exception; one that came from no pool is another one."""
        if error is None or error.__traceback__ is None:
            return None
        code = error.__traceback__.tb_frame.f_code
        is_from_pool = code.co_name == "run" and code.co_filename == _thread_pools.__file__
        return self._handed_on.pop(id(error), None) if is_from_pool else None

    def _origin_of(self, error: BaseException | None, context: Context | None, is_here: bool) -> object:
        if self._origin is None:
            return None
        if context is not None:
            return context.get(self._origin)
        if (handed_on := self._handed_on_with(error)) is not None:
            return handed_on
        return self.origin_here() if is_here else None


FAILURES = Failures()
"""The process's."""
