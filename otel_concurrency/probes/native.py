"""The native task probe as Python sees it: its rows as dataclasses, and the pure twin beside it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from types import CodeType
from typing import Any

from otel_concurrency.probes import _native
from otel_concurrency.probes.account import Account
from otel_concurrency.probes.histogram import HistogramState, ProbeExemplar
from otel_concurrency.probes.native_trio import NativeTrioTasks
from otel_concurrency.probes.pure import PureTaskProbe
from otel_concurrency.probes.tasks import (
    BeginSpan,
    LoopRow,
    SlowStep,
    SpanPlan,
    TaskCount,
    TaskNumbers,
    TaskRow,
    Untracked,
    merge_counts,
    merge_loops,
    merge_rows,
)
from otel_concurrency.probes.trio_tasks import TrioTasks, with_states
from otel_concurrency.probes.waits import WaitRow, merge_waits, wait_row


class NativeTaskProbe(Untracked):
    """Counts tasks, their steps and their ends by coroutine function.

    Args:
        max_coroutines: Rows kept; the tasks of further coroutine functions share the row `_other`.
        max_error_types: Exception type names kept over all rows, then `_other`.
        origin: Context variable whose value exemplars keep.
        loops: Where loops get their ids; without it, the probe numbers them itself.
    """

    way: str = _native.WAY

    def __init__(
        self,
        *,
        max_coroutines: int = 200,
        max_error_types: int = 50,
        origin: contextvars.ContextVar[Any] | None = None,
        loops: Callable[[asyncio.AbstractEventLoop], tuple[int | None, str]] | None = None,
    ) -> None:
        super().__init__()
        self._foreign = PureTaskProbe(
            max_coroutines=max_coroutines,
            max_error_types=max_error_types,
            origin=origin,
            loops=lambda loop: self._native.loop_of(loop),
        )
        self._native = _native.TaskProbe(
            asyncio.CancelledError,
            max_coroutines=max_coroutines,
            max_error_types=max_error_types,
            origin=origin,
            # 3.14 keeps the running task elsewhere, and the watcher needs no dict.
            current_tasks=getattr(asyncio.tasks, "_current_tasks", None) if self.way == "proxy" else None,
            foreign=self._foreign.follow,
            loop_ids=loops,
        )
        self._trio: NativeTrioTasks | None = None
        self.create_task: Callable[..., asyncio.Future[Any]] = self._native.create_task
        self.wait_begins: Callable[[int], bool] = self._native.wait_begins
        self.wait_names = self._foreign.wait_names

    def replace(self, original: Callable[..., Any], /) -> None:
        """Leave it to `create_task`, which is C, and `shorten`."""

    def shorten(self, function: Callable[..., Any], /) -> bool:
        """Let plain calls of a function with the closure (create_task, original) come here at once."""
        return _native.shortcut(function)

    def see_through(self, code: CodeType, carried: Callable[[Any], Any]) -> None:
        """Name a task whose coroutine is of this code by what `carried` returns for it."""
        self._native.see_through(code, carried)
        self._foreign.see_through(code, carried)

    def follow_trio(self, cancelled: type[BaseException]) -> TrioTasks:
        """Return what follows the tasks of trio, and counts them here."""
        self._native.also_cancelled(cancelled)
        if self._trio is None:
            self._trio = NativeTrioTasks(self._native.follow)
        return self._trio

    def tell_spans(self, begin: BeginSpan | None, how: SpanPlan | None = None) -> None:
        """Ask this for each task that is created in a copy of its creator's context; None: ask nobody.

        Args:
            begin: Who is asked.
            how: What it would do, for a probe that can do it by itself.
        """
        self._native.tell_spans(begin, how)
        self._foreign.span_key = how.key if how is not None else None  # requests hear of its waits

    def new_account(self) -> Account:
        """Return an account for a request that begins."""
        return _native.Account()

    def read_rows(self) -> list[TaskRow]:
        """Return each row, exemplars drained, no function twice."""
        return merge_rows([*map(_row, self._native.read_rows()), *self._foreign.read_rows()])

    def peek_rows(self) -> list[TaskCount]:
        """Return the numbers of each row, exemplars left where they are, no function twice."""
        seen = [
            TaskCount._make((*numbers, histogram_state(finished), True))
            for *numbers, finished in self._native.peek_rows()
        ]
        return merge_counts([*seen, *self._foreign.peek_rows()])

    def read_loops(self) -> list[LoopRow]:
        """Return the tasks of each live loop; the id of the row of all loops beyond the limit is None."""
        rows = [*(LoopRow(*row) for row in self._native.read_loops()), *self._foreign.read_loops()]
        if self._trio is not None:
            runners = {self._native.loop_of(runner): runner for runner in self._trio.runners()}
            rows = [
                with_states(row, runners[known])
                if (known := (row.loop_id, row.loop_type)) in runners
                else row
                for row in rows
            ]
        return merge_loops(rows)

    def wait_for(self, future: asyncio.Future[Any], row: int, /) -> None:
        """Count a wait that lasts until a future is done."""
        self._foreign.wait_for(future, row)

    def task_waits(self, task: Any, kind: int, /) -> None:
        """Leave out a task of trio that was there before: nobody sees its steps."""

    def read_waits(self) -> list[WaitRow]:
        """Return a row for each kind and name for which somebody has waited."""
        seen = [
            wait_row(self.wait_names, row, contentions, waiting, wait_ns, histogram_state(durations))
            for row, contentions, waiting, wait_ns, durations in self._native.read_waits()
        ]
        return merge_waits([*seen, *self._foreign.read_waits()])

    def reset(self) -> None:
        """Begin at zero, as a forked child must: the tasks alive are the parent's, and count nowhere here."""
        self._native.reset()
        self._foreign.reset()

    def note_slow_steps(self, threshold_ns: int) -> None:
        """Keep steps that take so long, for `slow_steps`; 0: none."""
        self._native.note_slow_steps(threshold_ns)

    def step_counts(self) -> dict[str, int]:
        """Return how many steps there were of each coroutine function."""
        counts: dict[str, int] = {}
        for function, steps in self._native.step_counts():
            counts[function] = counts.get(function, 0) + steps
        return counts

    def numbers(self, task: Any, /) -> TaskNumbers | None:
        """Return what is known of a live task, of asyncio or of trio."""
        coroutine = getattr(task, "coro", None)  # trio's
        if coroutine is None:
            coroutine = task.get_context() if self.way == "watcher" else task.get_coro()
        known = self._native.numbers(coroutine, task)
        return TaskNumbers(*known) if known is not None else self._foreign.numbers(task)

    def slow_steps(self) -> list[SlowStep]:
        """Return the slow steps since the last call; of at most 64 between two."""
        return [SlowStep(*step) for step in self._native.slow_steps()]

    def running(self) -> list[tuple[int, str, int]]:
        """Return (thread ident, coroutine function, ns since its step began) of each thread inside a step."""
        return self._native.running()


def _row(read: tuple[Any, ...]) -> TaskRow:
    function, created, finished, cancelled, destroyed, failed, live, steps, busy_ns, *histograms = read
    return TaskRow(
        function,
        created,
        finished,
        cancelled,
        destroyed,
        failed,
        live,
        True,
        busy_ns,
        steps,
        *map(histogram_state, histograms),
    )


def histogram_state(read: tuple[Any, ...]) -> HistogramState:
    """Make a dataclass of what the native probes tell of a histogram."""
    count, sum_ns, min_ns, max_ns, zero_count, first, bucket_counts, exemplars = read
    kept = tuple(ProbeExemplar(*exemplar) for exemplar in exemplars)
    return HistogramState(count, sum_ns, min_ns, max_ns, zero_count, first, bucket_counts, kept)
