"""The tasks of trio in pure Python: an instrument for each run, and what trio tells of the end of each task.

It writes the rows of the pure task probe (`pure.py`), steps included: trio tells of each.
"""

from __future__ import annotations

import contextvars
import functools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_concurrency.probes.pure_rows import LoopTasks, Row, StepTotals
from otel_concurrency.probes.tasks import LoopRow, SlowStep
from otel_concurrency.probes.trio_tasks import is_cancellation, named_by, with_states

if TYPE_CHECKING:
    from otel_concurrency.probes.pure import PureTaskProbe

MAX_SLOW_STEPS = 64

_cpu_ns: Callable[[], int] = getattr(time, "thread_time_ns", lambda: -1)


class _Live:
    """A task that is not done."""

    __slots__ = ("has_begun", "key", "loop", "row", "runner_id", "steps", "wait_over")

    def __init__(self, loop: LoopTasks, runner_id: int, key: int, row: Row, steps: StepTotals) -> None:
        self.loop = loop
        self.runner_id = runner_id
        self.key = key
        self.row = row
        self.steps = steps
        self.has_begun = False
        self.wait_over: Callable[[object], None] | None = None


class PureTrioTasks:
    """Follows the tasks of all runs of trio.

    Args:
        probe: Counts them.
        cancelled: `trio.Cancelled`.
        origin: Context variable whose value exemplars keep.

    Attributes:
        slow_ns: From when on a step is kept for `slow_steps`.
        live: The tasks that are not done, by the id of the task, which trio keeps until it is.
    """

    def __init__(
        self,
        probe: PureTaskProbe,
        cancelled: type[BaseException],
        origin: contextvars.ContextVar[Any] | None,
    ) -> None:
        self.probe = probe
        self.slow_ns = 0
        self.live: dict[int, _Live] = {}
        self.is_on = True
        self._cancelled = cancelled
        self._origin = origin
        self._runs: weakref.WeakSet[_Run] = weakref.WeakSet()
        self._runners: list[weakref.ref[Any]] = []
        self._slow_steps: deque[SlowStep] = deque(maxlen=MAX_SLOW_STEPS)

    def instrument(self, runner: Any) -> Any:
        """Return a `trio.abc.Instrument` for a run that is about to begin."""
        self.is_on = True
        run = _Run(self)
        self._runs.add(run)
        self._runners = [each for each in self._runners if each() is not None]
        self._runners.append(weakref.ref(runner, functools.partial(self._run_is_gone, id(runner))))
        return run

    def silence(self) -> None:
        """Follow no further tasks, whoever still holds an instrument."""
        self.is_on = False

    def spawned(self, task: Any) -> None:
        """Count a task that was just made."""
        probe = self.probe
        named = named_by(task.coro)
        if named is None:
            return
        row = probe.row_of(named)
        steps = row.steps
        if steps is None:
            with probe.lock:
                steps = row.steps = row.steps or StepTotals()
        runner = task._runner
        loop = probe.loop_row(runner)
        key = probe.now_ns()
        while key in loop.live:
            key += 1
        loop.live[key] = row
        self.live[id(task)] = _Live(loop, id(runner), key, row, steps)

    def task_exited(self, task: Any, outcome: Any) -> None:
        """Count the end of a task; `outcome` is its `outcome.Outcome`."""
        live = self.live.pop(id(task), None)
        if live is None:
            return
        probe = self.probe
        try:
            duration_ns = probe.now_ns() - live.key
            error = getattr(outcome, "error", None)
            origin = task.context.get(self._origin) if self._origin is not None else None
            row = live.row
            if live.loop.live.pop(live.key, None) is None:
                return
            if error is None:
                durations = row.finished_durations
            elif is_cancellation(error, self._cancelled):
                durations = row.cancelled_durations
            else:
                durations = probe.failed(row, error)
            with probe.lock:
                if origin:
                    durations.observe(duration_ns, origin, time.time_ns())
                else:
                    durations.observe(duration_ns)
        except Exception:
            probe.give_up()
        finally:
            error = outcome = None  # no cycle through this frame

    def task_waits(self, task: Any, begin: Callable[[], Callable[[object], None]]) -> None:
        """Count a wait until the next step of a task; `begin` returns what is to be called then."""
        live = self.live.get(id(task))
        if live is not None:
            live.wait_over = begin()

    def states(self, known: LoopTasks, count: int) -> tuple[int, int]:
        """Tell how many tasks of a run run, and how many are in line."""
        runner = known.reference()
        if runner is None:
            return 0, 0
        running = sum(run.runs_one_of(known) for run in list(self._runs))
        row = LoopRow(known.loop_id, known.loop_type, running, 0, max(0, count - running), 0, "")
        told = with_states(row, runner)
        return told.running, told.scheduled

    def keep_slow_step(self, row: Row, task: Any, busy_ns: int) -> None:
        """Keep who held a loop for long."""
        origin = task.context.get(self._origin) if self._origin is not None else None
        self._slow_steps.append(
            SlowStep(
                row.function, origin or None, threading.get_ident(), time.monotonic_ns(), busy_ns, _cpu_ns()
            )
        )

    def slow_steps(self) -> list[SlowStep]:
        """Return the slow steps since the last call; of at most 64 between two."""
        steps = []
        while self._slow_steps:
            steps.append(self._slow_steps.popleft())
        return steps

    def reset(self) -> None:
        """Begin at zero: the tasks alive are the parent process's."""
        self.live.clear()
        self._slow_steps.clear()
        for run in list(self._runs):
            run.forget_step()

    def _run_is_gone(self, runner_id: int, reference: object) -> None:
        # Nothing is left of a run that came to its end; a guest run may have been abandoned by its host. A
        # lock may be held here, so what died is only noted.
        for key, live in list(self.live.items()):
            if live.runner_id == runner_id:
                self.live.pop(key, None)
                self.probe.died.append((live.loop, live.key, None))


class _Run:
    """The instrument of one run. It must not raise: trio would let go of it, and say so in a log."""

    def __init__(self, tasks: PureTrioTasks) -> None:
        self._tasks = tasks
        self._live = tasks.live
        self._lock = tasks.probe.lock
        self._now_ns = tasks.probe.now_ns
        self._step: _Live | None = None
        self._began_ns = 0

    def __repr__(self) -> str:
        return "<trio instrument of otel_concurrency>"

    def task_spawned(self, task: Any) -> None:
        if self._tasks.is_on:
            try:
                self._tasks.spawned(task)
            except Exception:
                self._give_up()

    def before_task_step(self, task: Any) -> None:
        live = self._step = self._live.get(id(task))
        if live is None:
            return
        self._began_ns = began_ns = self._now_ns()
        try:
            if live.wait_over is not None:
                wait_over, live.wait_over = live.wait_over, None
                wait_over(None)
            if not live.has_begun:
                live.has_begun = True
                with self._lock:
                    live.steps.start_delays.observe(began_ns - live.key)
        except Exception:
            self._give_up()

    def after_task_step(self, task: Any) -> None:
        live = self._step
        if live is None:
            return
        self._step = None
        try:
            busy_ns = self._now_ns() - self._began_ns
            steps = live.steps
            with self._lock:
                steps.steps += 1
                steps.busy_ns += busy_ns
                steps.durations.observe(busy_ns)
            if busy_ns >= self._tasks.slow_ns:
                self._tasks.keep_slow_step(live.row, task, busy_ns)
        except Exception:
            self._give_up()

    def runs_one_of(self, known: LoopTasks) -> bool:
        step = self._step
        return step is not None and step.loop is known

    def forget_step(self) -> None:
        self._step = None
        self._lock = self._tasks.probe.lock

    def _give_up(self) -> None:
        self._tasks.is_on = False
        self._tasks.probe.give_up()
