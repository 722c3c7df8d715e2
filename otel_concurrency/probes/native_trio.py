"""The tasks of trio, counted by the native task probe: a proxy drives each task's coroutine.

trio resumes a task by `send` or `throw` of `Task.coro` (`trio/_core/_run.py`). A proxy in the place of the
coroutine sees every step and the end, and no instrument is called but for a new task.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

from otel_concurrency.probes.trio_tasks import named_by

_logger = logging.getLogger(__name__)


class NativeTrioTasks:
    """Follows the tasks of all runs of trio.

    Args:
        follow: `_native.TaskProbe.follow`.
    """

    task_exited: Callable[[Any, Any], None] | None = None

    def __init__(self, follow: Callable[[Any, Any, Any], Any]) -> None:
        self._follow = follow
        self._runners: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_on = True

    def __repr__(self) -> str:
        return "<trio instrument of otel_concurrency>"

    def instrument(self, runner: Any) -> Any:
        """Return a `trio.abc.Instrument` for a run that is about to begin."""
        self._is_on = True
        self._runners.add(runner)
        return _Instrument(self)

    def silence(self) -> None:
        """Follow no further tasks, whoever still holds an instrument."""
        self._is_on = False

    def runners(self) -> list[Any]:
        """Return the runs that are there."""
        return list(self._runners)

    def spawned(self, task: Any) -> None:
        """Count a task that was just made."""
        if self._is_on:
            try:
                coroutine = task.coro
                named = named_by(coroutine)
                if named is not None:
                    task.coro = self._follow(task._runner, coroutine, named)
            except Exception:
                self._is_on = False
                _logger.exception(
                    "Counting trio's tasks failed and is switched off; the program goes on without it"
                )


class _Instrument:
    """It must not raise: trio would let go of it, and say so in a log."""

    def __init__(self, tasks: NativeTrioTasks) -> None:
        self.task_spawned = tasks.spawned
