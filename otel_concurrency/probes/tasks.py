"""What a task probe keeps, a row per coroutine function and a row per event loop, and what it offers."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import add
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from otel_concurrency.probes.account import Account
from otel_concurrency.probes.crossing import Replacement
from otel_concurrency.probes.histogram import HistogramState, merge_states
from otel_concurrency.probes.waits import WaitNames, WaitRow

if TYPE_CHECKING:
    from otel_concurrency.probes.trio_tasks import TrioTasks

OTHER = "_other"
"""The row of every coroutine, and the error type, beyond a table's limit."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """All tasks of one coroutine function, frozen; every number only grows, but `live`.

    Attributes:
        function: `module.qualname` of the coroutine function, or `_other`.
        created: Tasks made.
        finished: Tasks that returned.
        cancelled: Tasks that ended cancelled.
        destroyed: Tasks that were garbage-collected while pending ("Task was destroyed but it is pending!").
        failed: Tasks that raised, by qualified exception type.
        live: Tasks not done: `created - finished - cancelled - destroyed - sum(failed)`.
        sees_steps: Whether `busy_ns`, `steps`, `step_durations` and `start_delays` are kept at all.
        busy_ns: Time inside steps, ns.
        steps: Steps begun.
        finished_durations: Creation to end of the finished ones.
        cancelled_durations: Creation to end of the cancelled ones.
        failed_durations: Creation to end of the failed ones.
        start_delays: Creation to first step.
        step_durations: Each step.
    """

    function: str
    created: int
    finished: int
    cancelled: int
    destroyed: int
    failed: Mapping[str, int]
    live: int
    sees_steps: bool
    busy_ns: int
    steps: int
    finished_durations: HistogramState
    cancelled_durations: HistogramState
    failed_durations: HistogramState
    start_delays: HistogramState
    step_durations: HistogramState


class TaskCount(NamedTuple):
    """What is asked of a row every now and then, for less than all of it; nothing is drained.

    Attributes:
        function: As in `TaskRow`.
        created: Tasks made.
        done: Tasks that have ended, however they did.
        live: Tasks not done.
        steps: Steps begun.
        busy_ns: Time inside steps, ns.
        finished: Creation to end of those that returned.
        sees_steps: Whether `steps` and `busy_ns` are kept at all.
    """

    function: str
    created: int
    done: int
    live: int
    steps: int
    busy_ns: int
    finished: HistogramState
    sees_steps: bool = True


@dataclass(frozen=True, slots=True)
class LoopRow:
    """The live tasks of one event loop, frozen.

    Attributes:
        loop_id: 0 for the first loop seen, then 1, ...; `None` for all loops beyond the limit.
        loop_type: `selector`, `proactor`, `uvloop`, `winloop`, `trio` or `other`.
        running: Tasks inside a step.
        scheduled: Tasks ready to run: not started yet, or suspended without a future (`asyncio.sleep(0)`).
        waiting: Tasks suspended on a future.
        oldest_age_ns: Age of the oldest live task, ns; 0 without one.
        oldest_function: The `TaskRow.function` of that task; empty without one.
    """

    loop_id: int | None
    loop_type: str
    running: int
    scheduled: int
    waiting: int
    oldest_age_ns: int
    oldest_function: str


class TaskNumbers(NamedTuple):
    """What is known of one live task; what nobody keeps is -1.

    Attributes:
        age_ns: Since it was created.
        steps: Steps begun.
        busy_ns: Time inside those that are over; kept only of tasks of a request or with a span to come.
        wait_row: What it waits for, by `waits.row_of`; of tasks that wait for a lock or a queue.
        wait_ns: For how long.
    """

    age_ns: int
    steps: int = -1
    busy_ns: int = -1
    wait_row: int = -1
    wait_ns: int = -1


class Untracked:
    """The tasks that were there before anyone counted; only weakly known."""

    def __init__(self) -> None:
        self._untracked: weakref.WeakSet[Any] = weakref.WeakSet()

    def leave_untracked(self, tasks: Iterable[Any]) -> None:
        """Remember tasks made before instrumentation; their start is unknown, so no row counts them."""
        self._untracked.update(tasks)

    def untracked(self) -> int:
        """Count those of them that are not done."""
        return sum(not _is_done(task) for task in self._untracked)


def _is_done(task: Any) -> bool:
    done = getattr(task, "done", None)
    return bool(done()) if done is not None else task.coro.cr_frame is None  # trio's tasks cannot be asked


class SlowStep(NamedTuple):
    """A step that held its loop for long.

    Attributes:
        function: The coroutine function.
        origin: The value that the probe's origin variable had; None without one.
        thread_ident: `threading.get_ident()` of the loop's thread.
        ended_ns: When it ended, by `time.monotonic_ns()`.
        busy_ns: How long it took.
        cpu_ns: CPU time of the thread at its end; -1 where nobody tells.
    """

    function: str
    origin: object
    thread_ident: int
    ended_ns: int
    busy_ns: int
    cpu_ns: int


class TaskSpan(Protocol):
    """What is told of a task's end."""

    def task_ended(
        self,
        outcome: str,
        duration_ns: int,
        error: BaseException | None = None,
        task: object = None,
        steps: int = -1,
        busy_ns: int = -1,
        start_delay_ns: int = -1,
        /,
    ) -> None:
        """Hear of it, where a program's code may run: not from within a garbage collection.

        Args:
            outcome: `finished`, `failed`, `cancelled` or `destroyed`.
            duration_ns: Creation to end.
            error: Why it failed.
            task: If it is known here.
            steps: How many steps it took; -1, as below: nobody has seen.
            busy_ns: Time inside its steps.
            start_delay_ns: Creation to first step.
        """
        ...

    def forget(self) -> None:
        """Hear that there is no such task."""
        ...


BeginSpan = Callable[[Any], "tuple[TaskSpan, Any] | None"]
"""Called with the coroutine of a task to come; returns what to tell of its end, and the value that the
probe's origin variable shall have in the task's context."""


class SpanPlan(NamedTuple):
    """How the stand-in of a task's span is made, once a coroutine function and a span around were accepted.

    Attributes:
        maker: Its `_maker`.
        key: Under which the value of the origin variable holds the current span.
        stand_in: Its type, derived from `stand_in_state()`.
        context: The type of the origin variable's values.
        threshold_ns: A task that finished sooner tells nothing, unless somebody took its ids.
    """

    maker: object
    key: object
    stand_in: type[Any]
    context: type[Any]
    threshold_ns: int


class TaskProbe(Protocol):
    """What all three ways of counting tasks offer."""

    way: str
    """`proxy`, `watcher` or `pure`."""

    wait_names: WaitNames
    """What those are called that tasks wait for."""

    @property
    def create_task(self) -> Callable[..., asyncio.Future[Any]]:
        """Calls `original(loop, coroutine, **kwargs)`, and follows the task that it returns."""
        ...

    def replace(self, original: Callable[..., Any], /) -> Replacement | None:
        """Return a `create_task` that follows its tasks, and what silences it.

        None where `create_task` is what anybody's own function had best call.
        """
        ...

    def shorten(self, function: Callable[..., Any], /) -> bool:
        """Spare plain calls of a function with the closure (create_task, original) their frame, if it can be.

        Whatever else is asked of the function, it stays the Python function that it is.
        """
        ...

    @property
    def wait_begins(self) -> Callable[[int], bool]:
        """Counts a wait of the task whose step runs now, in the row that `waits.row_of` says.

        Returns:
            False where its steps are not seen: `wait_for` is for that.
        """
        ...

    def wait_for(self, future: asyncio.Future[Any], row: int, /) -> None:
        """Count a wait that lasts until a future is done."""
        ...

    def task_waits(self, task: Any, kind: int, /) -> None:
        """Count a wait of a task of trio for which `wait_begins` was False, if trio tells of its steps."""
        ...

    def read_waits(self) -> list[WaitRow]:
        """Return a row for each kind and name for which somebody has waited."""
        ...

    def see_through(self, code: CodeType, carried: Callable[[Any], Any]) -> None:
        """Name a task whose coroutine is of this code by what `carried` returns for it."""
        ...

    def follow_trio(self, cancelled: type[BaseException]) -> TrioTasks:
        """Return what follows the tasks of trio, and counts them here.

        Args:
            cancelled: `trio.Cancelled`.
        """
        ...

    def tell_spans(self, begin: BeginSpan | None, how: SpanPlan | None = None) -> None:
        """Ask this for each task that is created in a copy of its creator's context; None: ask nobody.

        Args:
            begin: Who is asked.
            how: What it would do, for a probe that can do it by itself.
        """
        ...

    def new_account(self) -> Account:
        """Return an account for a request that begins."""
        ...

    def read_rows(self) -> list[TaskRow]:
        """Return each row, exemplars drained, no function twice."""
        ...

    def peek_rows(self) -> list[TaskCount]:
        """Return the numbers of each row, exemplars left where they are, no function twice."""
        ...

    def read_loops(self) -> list[LoopRow]:
        """Return the tasks of each live loop."""
        ...

    def note_slow_steps(self, threshold_ns: int) -> None:
        """Keep steps that take so long, for `slow_steps`; 0: none. Nothing where steps are not seen."""
        ...

    def slow_steps(self) -> list[SlowStep]:
        """Return the slow steps since the last call."""
        ...

    def step_counts(self) -> dict[str, int]:
        """Return how many steps there were of each coroutine function; nothing where steps are not seen."""
        ...

    def numbers(self, task: Any, /) -> TaskNumbers | None:
        """Return what is known of a live task, asked from any thread; None: it is not counted here."""
        ...

    def reset(self) -> None:
        """Begin at zero, as a forked child must: the tasks alive are the parent's, and count nowhere here."""
        ...

    def leave_untracked(self, tasks: Iterable[Any]) -> None:
        """Remember tasks made before instrumentation."""
        ...

    def untracked(self) -> int:
        """Count those of them that are not done."""
        ...


def merge_rows(rows: Iterable[TaskRow]) -> list[TaskRow]:
    """Add up rows of one name: code objects may share it, and the twin counts beside the native probe."""
    merged: dict[str, TaskRow] = {}
    for row in rows:
        known = merged.get(row.function)
        merged[row.function] = row if known is None else _add_rows(known, row)
    return list(merged.values())


def merge_counts(rows: Iterable[TaskCount]) -> list[TaskCount]:
    """Add up rows of one name."""
    merged: dict[str, TaskCount] = {}
    for row in rows:
        known = merged.get(row.function)
        merged[row.function] = (
            row
            if known is None
            else TaskCount._make(
                (
                    row.function,
                    *map(add, known[1:6], row[1:6]),
                    merge_states(known.finished, row.finished),
                    known.sees_steps or row.sees_steps,
                )
            )
        )
    return list(merged.values())


def _add_rows(one: TaskRow, other: TaskRow) -> TaskRow:
    failed = dict(one.failed)
    for name, count in other.failed.items():
        failed[name] = failed.get(name, 0) + count
    return TaskRow(
        function=one.function,
        created=one.created + other.created,
        finished=one.finished + other.finished,
        cancelled=one.cancelled + other.cancelled,
        destroyed=one.destroyed + other.destroyed,
        failed=failed,
        live=one.live + other.live,
        sees_steps=one.sees_steps or other.sees_steps,
        busy_ns=one.busy_ns + other.busy_ns,
        steps=one.steps + other.steps,
        finished_durations=merge_states(one.finished_durations, other.finished_durations),
        cancelled_durations=merge_states(one.cancelled_durations, other.cancelled_durations),
        failed_durations=merge_states(one.failed_durations, other.failed_durations),
        start_delays=merge_states(one.start_delays, other.start_delays),
        step_durations=merge_states(one.step_durations, other.step_durations),
    )


def merge_loops(rows: Iterable[LoopRow]) -> list[LoopRow]:
    """Add up rows of the same loop."""
    merged: dict[int | None, LoopRow] = {}
    for row in rows:
        known = merged.get(row.loop_id)
        if known is None:
            merged[row.loop_id] = row
            continue
        older = row if row.oldest_age_ns > known.oldest_age_ns else known
        merged[row.loop_id] = replace(
            older,
            running=known.running + row.running,
            scheduled=known.scheduled + row.scheduled,
            waiting=known.waiting + row.waiting,
        )
    return list(merged.values())
