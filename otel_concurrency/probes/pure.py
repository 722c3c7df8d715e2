"""The pure twin of the native task probe: one shared done-callback with a fixed empty context, and no steps.

It serves on PyPy, on free-threaded builds, without a compiler, and beside the native probe for the few tasks that cannot
be followed step by step (a generator-based coroutine, `async_generator.aclose()`).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from otel_concurrency.probes.histogram import Histogram, HistogramState
from otel_concurrency.probes.loops import LoopIndex
from otel_concurrency.probes.tasks import OTHER, LoopRow, TaskRow, Untracked

MAX_STATES_READ = 4096
"""Live tasks a loop whose state is looked at when asked; the rest counts in proportion."""

_EMPTY = contextvars.Context()
"""The context of every callback of ours: without one, each would keep its task's whole context alive."""

_NOTHING = HistogramState()

_logger = logging.getLogger(__name__)


class _Row:
    __slots__ = (
        "cancelled",
        "cancelled_durations",
        "destroyed",
        "failed",
        "failed_durations",
        "finished",
        "finished_durations",
        "function",
    )

    def __init__(self, function: str) -> None:
        self.function = function
        self.finished = self.cancelled = self.destroyed = 0
        self.failed: dict[str, int] = {}
        self.finished_durations = Histogram()
        self.cancelled_durations = Histogram()
        self.failed_durations = Histogram()


class _TaskReference(weakref.ref["asyncio.Future[Any]"]):
    """A weak reference that carries the task's numbers; it dies with the task, and they with it."""

    __slots__ = ("created_ns", "live", "origin", "row", "task_id")

    row: _Row
    created_ns: int
    origin: object
    task_id: int
    live: dict[int, _TaskReference]


class PureTaskProbe(Untracked):
    """Counts tasks and their ends by coroutine function; knows nothing of steps.

    Args:
        max_coroutines: Rows kept; the tasks of further coroutine functions share the row `_other`.
        max_error_types: Exception type names kept over all rows, then `_other`.
        origin: Context variable whose value exemplars keep.
        loops: Where loops get their ids; the native probe's, when this one stands beside it.
        monotonic_ns: The clock.
    """

    way = "pure"

    def __init__(
        self,
        *,
        max_coroutines: int = 200,
        max_error_types: int = 50,
        origin: contextvars.ContextVar[Any] | None = None,
        loops: Callable[[asyncio.AbstractEventLoop], tuple[int | None, str]] | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__()
        self._max_coroutines = max_coroutines
        self._max_error_types = max_error_types
        self._origin = origin
        self._loop_of = loops or LoopIndex()
        self._now_ns = monotonic_ns
        self._newest: Callable[[], object] = lambda: None
        self._is_broken = False
        self._rows: dict[object, _Row] = {None: _Row(OTHER)}
        self._error_names: set[str] = set()
        self._loops: dict[int | None, tuple[str, dict[int, _TaskReference]]] = {}
        self._last_loop: tuple[Callable[[], object], dict[int, _TaskReference]] = (lambda: None, {})
        # Weak references die wherever a collection runs, so also while this thread holds the lock.
        self._died: deque[_TaskReference] = deque()
        self._buried = self._died.append
        self._lock = threading.Lock()

    def create_task(
        self,
        original: Callable[..., asyncio.Future[Any]],
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> asyncio.Future[Any]:
        """Call `original(loop, coroutine, *args, **kwargs)` and follow the task that it returns."""
        if self._is_broken:
            return original(loop, coroutine, *args, **kwargs)
        try:
            row = self._row_of(coroutine)  # before: an eager task may be done after, and its frame gone
            created_ns = self._now_ns()
        except Exception:
            self._break()
            return original(loop, coroutine, *args, **kwargs)
        task = original(loop, coroutine, *args, **kwargs)
        try:
            self._follow(loop, row, task, created_ns)
        except Exception:
            self._break()
        return task

    def follow(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, task: asyncio.Future[Any], created_ns: int
    ) -> None:
        """Count a task that was just made, and listen for its end."""
        self._follow(loop, self._row_of(coroutine), task, created_ns)

    def _follow(
        self, loop: asyncio.AbstractEventLoop, row: _Row, task: asyncio.Future[Any], created_ns: int
    ) -> None:
        if self._newest() is task:  # a loop's create_task that calls another's: followed already
            return
        self._newest = reference = _TaskReference(task, self._buried)
        reference.row = row
        reference.created_ns = created_ns
        reference.task_id = task_id = id(task)
        if self._origin is not None:
            reference.origin = self._origin.get(None)
        # No lock on this side: entering a dict is atomic, and what was created is what ended and what lives.
        reference.live = live = self._live_of(loop)
        live[task_id] = reference
        if self._died:
            with self._lock:
                self._bury()
        if task.done():  # an eager task may be
            self._end(task)
        else:
            task.add_done_callback(self._done, context=_EMPTY)

    def _live_of(self, loop: asyncio.AbstractEventLoop) -> dict[int, _TaskReference]:
        last, live = self._last_loop
        if last() is loop:
            return live
        loop_id, loop_type = self._loop_of(loop)
        place = self._loops.get(loop_id)
        if place is None or place[0] != loop_type:  # ids come back, perhaps to a loop of another type
            place = self._loops[loop_id] = (loop_type, place[1] if place else {})
        live = place[1]
        if loop_id is not None:
            self._last_loop = weakref.ref(loop), live
        return live

    def _break(self) -> None:
        """Our trouble stays ours: from now on tasks pass through uncounted."""
        if not self._is_broken:
            self._is_broken = True
            _logger.exception("Counting tasks failed and is switched off; the program goes on without it")

    def _done(self, task: asyncio.Future[Any]) -> None:
        try:
            self._end(task)
        except Exception:
            self._break()

    def _end(self, task: asyncio.Future[Any]) -> None:
        now_ns = self._now_ns()
        with self._lock:
            for _, live in list(self._loops.values()):
                reference = live.pop(id(task), None)
                if reference is not None:
                    break
            else:
                return
            row = reference.row
            if task.cancelled():
                row.cancelled += 1
                durations = row.cancelled_durations
            elif (error := getattr(task, "_exception", None)) is not None:  # `.exception()` would mark it retrieved
                name = self._error_name(type(error))
                row.failed[name] = row.failed.get(name, 0) + 1
                durations = row.failed_durations
            else:
                row.finished += 1
                durations = row.finished_durations
            if self._origin is not None and reference.origin:
                durations.observe(now_ns - reference.created_ns, reference.origin, time.time_ns())
            else:
                durations.observe(now_ns - reference.created_ns)

    def _bury(self) -> None:
        while self._died:
            reference = self._died.popleft()
            if reference.live.get(reference.task_id) is reference:
                del reference.live[reference.task_id]
                reference.row.destroyed += 1

    def _row_of(self, coroutine: Any) -> _Row:
        try:
            key: object = coroutine.cr_code
        except AttributeError:
            key = getattr(coroutine, "gi_code", type(coroutine))
        row = self._rows.get(key)
        return row if row is not None else self._new_row(key, coroutine)

    def _new_row(self, key: object, coroutine: Any) -> _Row:
        name = coroutine_name(coroutine)
        with self._lock:
            if len(self._rows) > self._max_coroutines:
                return self._rows[None]
            return self._rows.setdefault(key, _Row(name))

    def _error_name(self, error: type[BaseException]) -> str:
        name = type_name(error)
        if name not in self._error_names:
            if len(self._error_names) >= self._max_error_types:
                return OTHER
            self._error_names.add(name)
        return name

    def read_rows(self) -> list[TaskRow]:
        """Return each row, exemplars drained; the row of all others comes first."""
        with self._lock:
            self._bury()
            loops = list(self._loops.values())
            live = Counter(reference.row for _, tasks in loops for reference in list(tasks.values()))
            return [_read(row, live[row]) for row in self._rows.values()]

    def read_loops(self) -> list[LoopRow]:
        """Return the live tasks of each loop that has any; the id of the row of all others is None."""
        with self._lock:
            self._bury()
            # Strong references, so that no task dies while it is looked at.
            loops = [
                (loop_id, loop_type, len(live), next(iter(list(live.values())), None), _some(list(live.values())))
                for loop_id, (loop_type, live) in list(self._loops.items())
            ]
        rows = []
        for loop_id, loop_type, count, oldest, tasks in loops:
            running, scheduled = _states(tasks)
            if len(tasks) == MAX_STATES_READ:
                scheduled = scheduled * count // len(tasks)
            age_ns = self._now_ns() - oldest.created_ns if oldest is not None else 0
            function = oldest.row.function if oldest is not None else ""
            waiting = max(0, count - running - scheduled)
            rows.append(LoopRow(loop_id, loop_type, running, scheduled, waiting, age_ns, function))
        return rows


def type_name(kind: type) -> str:
    """Return `module.qualname`, without `builtins.`."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def coroutine_name(coroutine: Any) -> str:
    """Return `module.qualname` of the function that a coroutine came from, or the name of its type."""
    for prefix in ("cr", "gi"):
        code = getattr(coroutine, f"{prefix}_code", None)
        if code is not None:
            qualname = getattr(code, "co_qualname", None) or coroutine.__qualname__
            frame = getattr(coroutine, f"{prefix}_frame", None)
            module = frame.f_globals.get("__name__") if frame is not None else None
            return f"{module}.{qualname}" if module else qualname
    return type_name(type(coroutine))


def _some(references: Iterable[_TaskReference]) -> list[asyncio.Future[Any]]:
    tasks = []
    for reference in references:
        task = reference()
        if task is not None:
            tasks.append(task)
            if len(tasks) == MAX_STATES_READ:
                break
    return tasks


def _states(tasks: list[asyncio.Future[Any]]) -> tuple[int, int]:
    current = None
    if tasks:
        try:
            current = asyncio.current_task(tasks[0].get_loop())
        except RuntimeError:
            pass
    running = sum(task is current for task in tasks)
    scheduled = sum(task is not current and getattr(task, "_fut_waiter", None) is None for task in tasks)
    return running, scheduled


def _read(row: _Row, live: int) -> TaskRow:
    return TaskRow(
        function=row.function,
        created=row.finished + row.cancelled + row.destroyed + sum(row.failed.values()) + live,
        finished=row.finished,
        cancelled=row.cancelled,
        destroyed=row.destroyed,
        failed=dict(row.failed),
        live=live,
        sees_steps=False,
        busy_ns=0,
        steps=0,
        finished_durations=row.finished_durations.read(),
        cancelled_durations=row.cancelled_durations.read(),
        failed_durations=row.failed_durations.read(),
        start_delays=_NOTHING,
        step_durations=_NOTHING,
    )
