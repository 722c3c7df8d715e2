"""The pure twin of the native task probe: one shared done-callback with a fixed empty context, and no steps.

It serves on PyPy, on free-threaded builds, without a compiler, and beside the native probe for the few tasks
that cannot be followed step by step (a generator-based coroutine, `async_generator.aclose()`).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import logging
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

from otel_concurrency.probes.account import Account, PureAccount, account_in
from otel_concurrency.probes.crossing import Replacement
from otel_concurrency.probes.histogram import Histogram
from otel_concurrency.probes.loops import LoopIndex
from otel_concurrency.probes.pure_creation import EMPTY, End, ToldEnd, creation
from otel_concurrency.probes.pure_rows import LoopTasks, Row, peek_row, read_ended, read_row
from otel_concurrency.probes.tasks import (
    OTHER,
    BeginSpan,
    LoopRow,
    SlowStep,
    SpanPlan,
    TaskCount,
    TaskNumbers,
    TaskRow,
    TaskSpan,
    Untracked,
)
from otel_concurrency.probes.waits import FutureWaits, WaitNames, WaitRow

if TYPE_CHECKING:
    from otel_concurrency.probes.pure_trio import PureTrioTasks
    from otel_concurrency.probes.trio_tasks import TrioTasks

MAX_TASKS_READ = 10_000
"""Live tasks a loop whose states are looked at when asked; a larger loop's count as waiting."""

_logger = logging.getLogger(__name__)


def _nothing(_: None) -> None:
    """The current value of no variable."""


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
        self.origin_now: Callable[[None], Any] = origin.get if origin is not None else _nothing
        self._loop_of = loops or LoopIndex()
        self.now_ns = monotonic_ns
        self.rows: dict[object, Row] = {None: Row(OTHER)}
        self._error_names: set[str] = set()
        self._loops: list[LoopTasks] = []
        self.last_loop = LoopTasks(self, None, None, OTHER)
        self.last_id = 0  # of the task that was followed last
        self._last_foreign: Callable[[], object] = lambda: None
        self.is_broken = False
        self._trio: PureTrioTasks | None = None
        self._slow_ns = sys.maxsize
        self._carrier: CodeType | None = None
        self._carried: Callable[[Any], Any] = lambda coroutine: coroutine
        self._waits = FutureWaits(monotonic_ns)
        self.wait_names = WaitNames()
        self.lock = threading.Lock()
        # What dies, dies wherever a collection runs, so also while this thread holds the lock.
        self.died: deque[tuple[LoopTasks, int, TaskSpan | None]] = deque()
        self.begin_span: BeginSpan | None = None
        self.span_key: object = None

    def create_task(
        self,
        original: Callable[..., asyncio.Future[Any]],
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        /,
        **kwargs: Any,
    ) -> asyncio.Future[Any]:
        """Call `original(loop, coroutine, **kwargs)` and follow the task that it returns."""
        create_task, _ = self.replace(original)
        task: asyncio.Future[Any] = create_task(loop, coroutine, **kwargs)
        return task

    def replace(self, original: Callable[..., Any], /) -> Replacement:
        """Return a `create_task` that follows its tasks, and what silences it."""
        return creation(self, original)

    def create_in_span(
        self,
        begun: tuple[TaskSpan, Any] | None,
        account: Account | None,
        row: Row,
        created_ns: int,
        original: Callable[..., asyncio.Future[Any]],
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        kwargs: dict[str, Any],
    ) -> asyncio.Future[Any]:
        """Create a task while the origin variable has the value that it shall have in the task's context."""
        span, value = begun or (None, None)
        origin: Any = self._origin
        token = origin.set(value) if span is not None else None
        is_followed = False
        try:
            task = original(loop, coroutine, **kwargs) if kwargs else original(loop, coroutine)
            is_followed = self.last_id != id(task)
        finally:
            if token is not None and origin.get(None) is value:  # else a task factory has set it for good
                origin.reset(token)
            if span is not None and not is_followed:
                span.forget()
        try:
            if is_followed:
                if account is not None:
                    account.add_task()
                self._follow(loop, row, task, created_ns, origin.get(None), span)
        except Exception:
            self.give_up()
        return task

    def follow(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        task: asyncio.Future[Any],
        created_ns: int,
        span: TaskSpan | None = None,
    ) -> None:
        """Count a task that was just made, and listen for its end."""
        if self._last_foreign() is not task:
            self._last_foreign = weakref.ref(task)
            origin = self.origin_now(None)
            self._follow(loop, self.row_of(coroutine), task, created_ns, origin, span)
        elif span is not None:
            span.forget()

    def _follow(
        self,
        loop: asyncio.AbstractEventLoop,
        row: Row,
        task: asyncio.Future[Any],
        created_ns: int,
        origin: object,
        span: TaskSpan | None = None,
    ) -> None:
        self.last_id = id(task)
        known = self.last_loop
        if known.reference() is not loop:
            known = self.loop_row(loop)
        # No lock on this side: entering a dict is atomic, and what was created is what ended and what lives.
        live = known.live
        while created_ns in live:
            created_ns += 1
        live[created_ns] = row
        if self.died:
            self.bury()
        if span is None:
            end = End()
        else:
            end = told = ToldEnd()
            told.span = span
        end.loop = known
        end.key = created_ns
        end.origin = origin
        if task.done():  # an eager task may be
            end(task)
        else:
            task.add_done_callback(end, context=EMPTY)

    def loop_row(self, loop: Any) -> LoopTasks:
        """Return the live tasks of a loop, known or new."""
        loop_id, loop_type = self._loop_of(loop)
        with self.lock:
            for known in self._loops:
                if known.reference() is loop or known.loop_id is loop_id is None:
                    break
            else:
                # A loop that is gone and has no task left makes room.
                self._loops = [known for known in self._loops if known.live or known.reference() is not None]
                known = LoopTasks(self, loop, loop_id, loop_type)
                self._loops.append(known)
            self.last_loop = known
            return known

    def give_up(self) -> None:
        """Our trouble stays ours: from now on tasks pass through uncounted."""
        if not self.is_broken:
            self.is_broken = True
            _logger.exception("Counting tasks failed and is switched off; the program goes on without it")

    def bury(self) -> None:
        spans = []
        with self.lock:
            while self.died:
                loop, key, span = self.died.popleft()
                row = loop.live.pop(key, None)
                if row is not None:
                    row.destroyed += 1
                    if span is not None:
                        spans.append((span, max(0, self.now_ns() - key)))
        for span, age_ns in spans:
            span.task_ended("destroyed", age_ns)

    def tell_spans(self, begin: BeginSpan | None, how: SpanPlan | None = None) -> None:
        """Ask this for each task that is created in a copy of its creator's context; None: ask nobody.

        Args:
            begin: Who is asked.
            how: What it would do, for a probe that can do it by itself.
        """
        self.begin_span = begin if self._origin is not None else None
        self.span_key = how.key if how is not None else None

    def new_account(self) -> Account:
        """Return an account for a request that begins."""
        return PureAccount()

    def see_through(self, code: CodeType, carried: Callable[[Any], Any]) -> None:
        """Name a task whose coroutine is of this code by what `carried` returns for it."""
        self._carried, self._carrier = carried, code

    def follow_trio(self, cancelled: type[BaseException]) -> TrioTasks:
        """Return what follows the tasks of trio, and counts them here."""
        from otel_concurrency.probes.pure_trio import PureTrioTasks

        if self._trio is None:
            self._trio = PureTrioTasks(self, cancelled, self._origin)
            self._trio.slow_ns = self._slow_ns
        return self._trio

    def note_slow_steps(self, threshold_ns: int) -> None:
        """Keep steps that take so long, for `slow_steps`; 0: none. Only trio's are seen."""
        self._slow_ns = threshold_ns or sys.maxsize
        if self._trio is not None:
            self._trio.slow_ns = self._slow_ns

    def step_counts(self) -> dict[str, int]:
        """Return how many steps there were of each coroutine function whose steps are seen."""
        return {row.function: row.steps.steps for row in list(self.rows.values()) if row.steps is not None}

    def slow_steps(self) -> list[SlowStep]:
        """Return the slow steps since the last call; of at most 64 between two."""
        return self._trio.slow_steps() if self._trio is not None else []

    def numbers(self, task: Any, /) -> TaskNumbers | None:
        """Return the age of a live task of asyncio, which its done-callback knows."""
        entries: list[tuple[Any, Any]] = list(getattr(task, "_callbacks", None) or [])
        for callback, _ in entries:
            if isinstance(callback, End):
                return TaskNumbers(max(0, self.now_ns() - callback.key))
        return None

    def wait_begins(self, row: int, /) -> bool:
        """Leave it to `wait_for`: steps are not seen."""
        return False

    def wait_for(self, future: asyncio.Future[Any], row: int, /) -> None:
        """Count a wait that lasts until a future is done."""
        if not self.is_broken:
            self._waits.follow(future, row, account_in(self.origin_now(None), self.span_key))

    def task_waits(self, task: Any, kind: int, /) -> None:
        """Count a wait of a task of trio that lasts until its next step."""
        if self._trio is not None and not self.is_broken:
            account = account_in(self.origin_now(None), self.span_key)
            self._trio.task_waits(task, functools.partial(self._waits.begin, kind, account))

    def read_waits(self) -> list[WaitRow]:
        """Return a row for each kind and name for which somebody has waited."""
        return self._waits.read(self.wait_names)

    def reset(self) -> None:
        """Begin at zero, as a forked child must: the tasks alive are the parent's, and count nowhere here."""
        self.lock = threading.Lock()  # another thread may have held it at the fork
        self.died.clear()
        self._waits.reset()
        for known in self._loops:
            known.live.clear()
        self._loops = []
        self.last_loop = LoopTasks(self, None, None, OTHER)
        self._error_names.clear()
        for row in self.rows.values():
            row.begin()
        if self._trio is not None:
            self._trio.reset()

    def row_of(self, coroutine: Any) -> Row:
        """Return the row that the tasks of a coroutine's function count in."""
        try:
            key: object = coroutine.cr_code
        except AttributeError:
            key = getattr(coroutine, "gi_code", type(coroutine))
        if key is self._carrier:
            coroutine = self._carried(coroutine)
            key = coroutine.cr_code
        row = self.rows.get(key)
        return row if row is not None else self._new_row(key, coroutine)

    def _new_row(self, key: object, coroutine: Any) -> Row:
        name = coroutine_name(coroutine)
        with self.lock:
            if len(self.rows) > self._max_coroutines:
                return self.rows[None]
            return self.rows.setdefault(key, Row(name))

    def failed(self, row: Row, error: BaseException) -> Histogram:
        """Count a task that raised; returns where its duration goes."""
        with self.lock:
            name = self.error_name(type(error))
            row.failed[name] = row.failed.get(name, 0) + 1
        return row.failed_durations

    def error_name(self, error: type[BaseException]) -> str:
        name = type_name(error)
        if name not in self._error_names:
            if len(self._error_names) >= self._max_error_types:
                return OTHER
            self._error_names.add(name)
        return name

    def shorten(self, function: Callable[..., Any], /) -> bool:
        """Leave the function as it is: without C there is no way around a frame."""
        return False

    def read_rows(self) -> list[TaskRow]:
        """Return each row, exemplars drained; the row of all others comes first."""
        self.bury()
        with self.lock:
            ended = [(row, read_ended(row)) for row in self.rows.values()]
            # After what has ended: a task that ends meanwhile counts in neither, so never in both.
            live = Counter(row for loop in self._loops for row in list(loop.live.values()))
            return [read_row(row, durations, live[row]) for row, durations in ended]

    def peek_rows(self) -> list[TaskCount]:
        """Return the numbers of each row, exemplars left where they are."""
        self.bury()
        with self.lock:
            live = Counter(row for loop in self._loops for row in list(loop.live.values()))
            return [peek_row(row, live[row]) for row in self.rows.values()]

    def read_loops(self) -> list[LoopRow]:
        """Return the live tasks of each loop; the id of the row of all loops beyond the limit is None."""
        self.bury()
        now_ns = self.now_ns()
        rows = []
        for known in list(self._loops):
            live = list(itertools.islice(list(known.live.items()), 1))
            if not live and known.reference() is None:
                continue
            count = len(known.live)
            running, scheduled = self._states(known, count)
            waiting = max(0, count - running - scheduled)
            age_ns, function = (now_ns - live[0][0], live[0][1].function) if live else (0, "")
            rows.append(
                LoopRow(known.loop_id, known.loop_type, running, scheduled, waiting, age_ns, function)
            )
        return rows

    def _states(self, known: LoopTasks, count: int) -> tuple[int, int]:
        if self._trio is not None and known.loop_type == "trio":
            return self._trio.states(known, count)
        return _states(known, count)


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


def _states(known: LoopTasks, count: int) -> tuple[int, int]:
    """Tell how many of a loop's tasks run and how many are ready to, asking asyncio which tasks there are.

    Beyond `MAX_TASKS_READ` nobody asks: copying asyncio's set of tasks would hold the program up.
    """
    loop = known.reference()
    if loop is None or not count:
        return 0, 0
    try:
        current = asyncio.current_task(loop)
        tasks = asyncio.all_tasks(loop) if count <= MAX_TASKS_READ else set()
    except RuntimeError:  # the set changed too often while it was copied
        return 0, 0
    scheduled = sum(task is not current and getattr(task, "_fut_waiter", None) is None for task in tasks)
    return int(current is not None), min(scheduled, count)
