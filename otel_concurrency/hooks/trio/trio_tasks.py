"""Where we attach to the tasks of trio: an instrument for each run, given to it where every run is set up.

`trio.run` and `trio.lowlevel.start_guest_run` both begin with `setup_runner` (trio 0.17 and later,
`trio/_core/_run.py`), and AnyIO runs trio by them. Instruments that a program brings stay, and are called as
before. No instrument tells how a task ended; where the probe cannot see that by itself, it hears of it in
`Runner.task_exited`. trio is never imported for our sake.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.probes.tasks import TaskProbe
from otel_concurrency.probes.trio_tasks import TrioTasks, named_by

_RUN = "trio._core._run"

_logger = logging.getLogger(__name__)


class TrioTaskHook:
    """Leads the tasks of each run of trio to a task probe, from the time that trio is imported.

    Args:
        probe: Follows the tasks.
    """

    def __init__(self, probe: TaskProbe) -> None:
        self._probe = probe
        self._tasks: TrioTasks | None = None
        self._patches: list[Patch] = []
        self._stop_awaiting: Callable[[], None] | None = None
        self._is_broken = False

    def __repr__(self) -> str:
        state = self._patches or ("awaits its import" if self._stop_awaiting is not None else "removed")
        return f"<TrioTaskHook [{state}]>"

    def install(self) -> None:
        """Patch trio, now or when it is imported; a second call changes nothing.

        A run that is under way in this thread is joined: its tasks count from now on, but for those that
        are there.
        """
        if self._stop_awaiting is None:
            self._stop_awaiting = when_imported("trio", self._join)

    def remove(self) -> None:
        """Put everything back, last first; runs go on without us."""
        if self._stop_awaiting is not None:
            self._stop_awaiting()
            self._stop_awaiting = None
        while self._patches:
            self._patches.pop().remove()
        if self._tasks is not None:
            self._tasks.silence()
            self._tasks = None

    def _join(self, trio: ModuleType) -> None:
        run = sys.modules.get(_RUN)
        if not hasattr(run, "setup_runner") or not hasattr(getattr(run, "Runner", None), "task_exited"):
            _logger.debug("this trio sets up its runs in another way than we know; its tasks are not counted")
            return
        tasks = self._tasks = self._probe.follow_trio(trio.Cancelled)
        self._patches.append(Patch(run, "setup_runner", switched(self._observed)))
        if tasks.task_exited is not None:
            self._patches.append(Patch(run.Runner, "task_exited", switched(self._heard)))  # type: ignore[union-attr]
        for patch in self._patches:
            patch.install()
        under_way = getattr(getattr(run, "GLOBAL_RUN_CONTEXT", None), "runner", None)
        if under_way is not None:
            self._probe.leave_untracked(task for task in under_way.tasks if named_by(task.coro) is not None)
            self._begin(under_way)

    def _observed(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def setup_runner(*args: Any, **kwargs: Any) -> Any:
            runner = original(*args, **kwargs)
            if switch.is_on:
                self._begin(runner)
            return runner

        return setup_runner

    def _heard(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        tell = self._tasks.task_exited if self._tasks is not None else None

        @functools.wraps(original)
        def task_exited(self: Any, task: Any, outcome: Any) -> Any:
            if switch.is_on and tell is not None:
                tell(task, outcome)
            return original(self, task, outcome)

        return task_exited

    def _begin(self, runner: Any) -> None:
        try:
            if self._tasks is not None and not self._is_broken:
                runner.instruments.add_instrument(self._tasks.instrument(runner))
        except Exception:
            self._is_broken = True
            _logger.exception(
                "Counting trio's tasks failed and is switched off; the program goes on without it"
            )
