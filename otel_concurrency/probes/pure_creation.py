"""How the pure task probe follows a task: what stands for `create_task`, and what hears of the task's end.

Each is one function as far as it goes: a further call of Python's is 0.1 µs of the 3 that a task may cost.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_concurrency.probes.account import account_in
from otel_concurrency.probes.crossing import Replacement
from otel_concurrency.probes.histogram import MAX_PENDING
from otel_concurrency.probes.pure_rows import LoopTasks
from otel_concurrency.probes.tasks import TaskSpan

if TYPE_CHECKING:
    from otel_concurrency.probes.pure import PureTaskProbe

EMPTY = contextvars.Context()
"""The context of every callback of ours: without one, each would keep its task's whole context alive."""

_HAS_EAGER_TASKS = sys.version_info >= (3, 12)


class End:
    """A task's done-callback, which the task owns: called at its end, or let go of while it is pending."""

    __slots__ = ("key", "loop", "origin")

    loop: LoopTasks | None
    key: int
    origin: object

    def __call__(self, task: Any) -> None:
        loop, self.loop = self.loop, None
        if loop is None:
            return
        probe = loop.probe
        try:
            duration_ns = probe.now_ns() - self.key
            row = loop.live.pop(self.key, None)
            if row is None:  # the probe was reset since: the task is the parent process's
                return
            if task.cancelled():
                durations = row.cancelled_durations
            else:
                try:
                    error = task._exception  # `.exception()` would mark it retrieved
                except AttributeError:  # it is no task of asyncio's
                    error = None
                durations = row.finished_durations if error is None else probe.failed(row, error)
            if self.origin:
                with probe.lock:
                    durations.observe(duration_ns, self.origin, time.time_ns())
            else:
                pending = durations.pending
                pending.append(duration_ns)
                if len(pending) >= MAX_PENDING:
                    with probe.lock:
                        durations.sort_in()
        except Exception:
            probe.give_up()

    def __del__(self) -> None:
        loop = self.loop
        if loop is not None:  # the task died while pending; a lock may be held, so only say so
            loop.probe.died.append((loop, self.key, None))


class ToldEnd(End):
    """That of a task whose end somebody wants to hear of; the others have no room for it."""

    __slots__ = ("span",)

    span: TaskSpan

    def __call__(self, task: asyncio.Future[Any]) -> None:
        loop = self.loop
        if loop is None:
            return
        duration_ns = loop.probe.now_ns() - self.key
        is_live = self.key in loop.live
        super().__call__(task)
        if not is_live:
            return
        try:
            error = None if task.cancelled() else getattr(task, "_exception", None)
            outcome = "cancelled" if task.cancelled() else "finished" if error is None else "failed"
            self.span.task_ended(outcome, duration_ns, error, task)
        except Exception:
            loop.probe.give_up()

    def __del__(self) -> None:
        loop = self.loop
        if loop is not None:
            loop.probe.died.append((loop, self.key, self.span))


def creation(probe: PureTaskProbe, original: Callable[..., Any]) -> Replacement:
    """Return a `create_task` that calls `original(loop, coroutine, **kwargs)` and follows the task that it
    returns, and what silences it: from then on it only calls."""
    is_on = True
    # What stays what it is for as long as there is the probe.
    rows, row_of, died = probe.rows, probe.row_of, probe.died
    now_ns, origin_now = probe.now_ns, probe.origin_now

    def create_task(self: Any, coro: Any, **kwargs: Any) -> Any:
        if not is_on or probe.is_broken:
            return original(self, coro, **kwargs)
        try:
            # Before: an eager task may be done after, and its frame gone.
            try:
                row = rows[coro.cr_code]
            except (AttributeError, KeyError):
                row = row_of(coro)
            created_ns = now_ns()
        except Exception:
            probe.give_up()
            return original(self, coro, **kwargs)
        probe.last_id = 0
        origin = origin_now(None)
        # Outside of a span nobody is asked.
        if origin and probe.begin_span is not None and (probe.span_key is None or probe.span_key in origin):
            begun = account = None
            if kwargs.get("context") is None:
                begun = probe.begin_span(coro)
                account = account_in(origin, probe.span_key)
            if begun is not None or account is not None:
                return probe.create_in_span(begun, account, row, created_ns, original, self, coro, kwargs)
        # Handing on nothing at all is the common case, and a dict to unpack a slow one.
        task = original(self, coro, **kwargs) if kwargs else original(self, coro)
        try:
            task_id = id(task)
            if probe.last_id != task_id:  # else a loop's create_task called another's: followed already
                # What `follow` does.
                probe.last_id = task_id
                known = probe.last_loop
                if known.reference() is not self:
                    known = probe.loop_row(self)
                live = known.live
                while created_ns in live:
                    created_ns += 1
                live[created_ns] = row
                if died:
                    probe.bury()
                end = End()
                end.loop = known
                end.key = created_ns
                end.origin = origin
                if _HAS_EAGER_TASKS and task.done():
                    end(task)
                else:
                    task.add_done_callback(end, context=EMPTY)
        except Exception:
            probe.give_up()
        return task

    def silence() -> None:
        nonlocal is_on
        is_on = False

    return create_task, silence
