"""What is known of trio's tasks, whichever way they are counted: whose they are, names and states."""

from __future__ import annotations

import builtins
import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from otel_concurrency.probes.tasks import LoopRow

MAX_TASKS_READ = 10_000
"""Live tasks of a run whose states are looked at when asked; those of a larger one count as waiting."""

_HOLDS_LOCALS = sys.version_info >= (3, 11)  # a coroutine does so itself, and needs no frame object for that
_GROUP: type[BaseException] | None = getattr(builtins, "BaseExceptionGroup", None)  # CPython 3.11
_MAX_NURSERIES = 32  # looked into, one inside the other


class TrioTasks(Protocol):
    """Follows the tasks of all runs of trio."""

    @property
    def task_exited(self) -> Callable[[Any, Any], None] | None:
        """To be called with a task and its `outcome.Outcome`, where this cannot see the end by itself."""
        ...

    def instrument(self, runner: Any) -> Any:
        """Return a `trio.abc.Instrument` for a run that is about to begin."""
        ...

    def silence(self) -> None:
        """Follow no further tasks, whoever still holds an instrument."""
        ...


class _Frame(NamedTuple):
    f_globals: dict[str, Any]


class _Named:
    """Stands for a coroutine of a function that was not called yet."""

    def __init__(self, function: Any) -> None:
        self.cr_code = function.__code__
        self.cr_frame = _Frame(function.__globals__)
        self.__qualname__ = function.__qualname__


def named_by(coroutine: Any) -> Any:
    """Return what a task is to be named by, its coroutine or the one that this carries.

    Returns:
        None for a task that trio keeps for itself: there is one of each in every run.
    """
    find = _FINDERS.get(coroutine.cr_code.co_name)
    return coroutine if find is None else find(coroutine)


def _init(coroutine: Any) -> Any:
    return None if _module(coroutine) == "trio._core._run" else coroutine


def _entry_queue(coroutine: Any) -> Any:
    return None if _module(coroutine) == "trio._core._entry_queue" else coroutine


def _handle(coroutine: Any) -> Any:
    # AnyIO 4.14 `_core/_tasks.py`, `TaskHandle._run_coro`: each task of a task group.
    if _module(coroutine) != "anyio._core._tasks":
        return coroutine
    # Not by `f_locals`: until CPython 3.12 that stays with the frame, and what fails there is in a cycle.
    holder = coroutine if _HOLDS_LOCALS else coroutine.cr_frame
    for held in gc.get_referents(holder):
        if type(held).__module__ == "anyio._core._tasks":
            carried = getattr(held, "_coro", None)
            return carried if hasattr(carried, "cr_code") else coroutine
    return coroutine


def _start(coroutine: Any) -> Any:
    # AnyIO `_backends/_trio.py`, `TaskGroup.start`.
    if _module(coroutine) != "anyio._backends._trio":
        return coroutine
    return _function(coroutine.cr_frame.f_locals.get("func"), coroutine)


def _from_thread(coroutine: Any) -> Any:
    # `trio/_threads.py`, `Run.run_system`: what `trio.from_thread.run` brought.
    if _module(coroutine) != "trio._threads":
        return coroutine
    return _function(getattr(coroutine.cr_frame.f_locals.get("self"), "afn", None), coroutine)


_FINDERS: dict[str, Callable[[Any], Any]] = {
    "init": _init,
    "task": _entry_queue,
    "_run_coro": _handle,
    "run_coro_with_task_status": _start,
    "run_system": _from_thread,
}


def _module(coroutine: Any) -> object:
    return coroutine.cr_frame.f_globals.get("__name__")


def _function(function: Any, otherwise: Any) -> Any:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = getattr(function, "__func__", function)
    return _Named(function) if hasattr(function, "__code__") else otherwise


def is_cancellation(error: BaseException, cancelled: type[BaseException], depth: int = 0) -> bool:
    """Tell whether an exception is a cancellation, or a group that a nursery made of nothing else."""
    if isinstance(error, cancelled):
        return True
    if depth == _MAX_NURSERIES or not _is_group(error):
        return False
    errors: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return bool(errors) and all(is_cancellation(each, cancelled, depth + 1) for each in errors)


def _is_group(error: BaseException) -> bool:
    if _GROUP is not None:
        return isinstance(error, _GROUP)
    return type(error).__name__ in ("ExceptionGroup", "BaseExceptionGroup")  # of the backport


def with_states(row: LoopRow, runner: Any) -> LoopRow:
    """Return a run's row with the tasks that trio has in line told from those that wait."""
    alive = row.running + row.scheduled + row.waiting
    tasks = runner.tasks
    if not alive or len(tasks) > MAX_TASKS_READ:
        return row
    in_line = sum(each._next_send_fn is not None and each.parent_nursery is not None for each in list(tasks))
    scheduled = min(in_line, alive - row.running)
    return replace(row, scheduled=scheduled, waiting=alive - row.running - scheduled)
