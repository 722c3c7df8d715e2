"""Where we attach to asyncio tasks: `create_task` of every event loop class, known now or made later.

`asyncio.create_task`, `gather`, `ensure_future`, `TaskGroup`, `run_coroutine_threadsafe`, `Runner.run` and
the finalisers of asynchronous generators all end in `loop.create_task` (CPython `asyncio/base_events.py`,
`tasks.py`; uvloop `loop.pyx`). A task factory, eager or not, stays in place and is called as before.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.loops.loop_classes import LoopMethodPatches
from otel_concurrency.probes.tasks import TaskProbe
from otel_concurrency.probes.trio_tasks import named_by


class TaskHook:
    """Leads every `create_task` of every loop class through a task probe.

    Args:
        probe: Follows the tasks.
    """

    def __init__(self, probe: TaskProbe) -> None:
        self._probe = probe
        self._stop_awaiting: Callable[[], None] = lambda: None
        self._create_task = LoopMethodPatches("create_task", self._observe, loss="its tasks are not counted")

    def __repr__(self) -> str:
        return f"<TaskHook [{self._probe.way}] {self._create_task}>"

    def install(self) -> None:
        """Patch all loop classes; a second call changes nothing."""
        if not self._create_task.is_installed:
            self._probe.leave_untracked(_tasks_so_far())
            self._create_task.install()
            self._stop_awaiting = when_imported("anyio._core._tasks", self._see_through)

    def remove(self) -> None:
        """Put everything back, last first."""
        self._create_task.remove()
        self._stop_awaiting()

    def _see_through(self, module: ModuleType) -> None:
        # AnyIO 4.14: whatever a task group starts, its task is the handle's.
        code = getattr(getattr(getattr(module, "TaskHandle", None), "_run_coro", None), "__code__", None)
        if code is not None:
            self._probe.see_through(code, named_by)

    def _observe(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        whole = self._probe.replace(original)
        if whole is not None:
            return functools.wraps(original)(whole[0]), whole[1]
        create = self._probe.create_task
        wants = _parameters(original)

        # With the exact parameters no dict is built on the way, and what has its default stays at home;
        # beyond these, whatever comes goes through. The closure, (create, original), is what `shorten` wants.
        def with_name(self: Any, coro: Any, *, name: Any = None) -> Any:
            if name is None:  # the default
                return create(original, self, coro)
            return create(original, self, coro, name=name)

        def with_name_and_context(self: Any, coro: Any, *, name: Any = None, context: Any = None) -> Any:
            if name is None and context is None:
                return create(original, self, coro)
            return create(original, self, coro, name=name, context=context)

        def with_eager_start(
            self: Any, coro: Any, *, name: Any = None, context: Any = None, eager_start: Any = None
        ) -> Any:
            if name is None and context is None and eager_start is None:
                return create(original, self, coro)
            return create(original, self, coro, name=name, context=context, eager_start=eager_start)

        def with_anything(self: Any, coro: Any, **kwargs: Any) -> Any:
            return create(original, self, coro, **kwargs)

        create_task = with_anything
        if wants == ("self", "coro", "name"):
            create_task = with_name  # type: ignore[assignment]
        elif wants == ("self", "coro", "name", "context"):
            create_task = with_name_and_context  # type: ignore[assignment]
        elif wants == ("self", "coro", "name", "context", "eager_start"):  # uvloop 0.23
            create_task = with_eager_start  # type: ignore[assignment]
        create_task.__code__ = create_task.__code__.replace(co_name="create_task")  # as a traceback shows it

        def silence() -> None:
            nonlocal create
            create = _straight_through

        replacement = functools.wraps(original)(create_task)
        self._probe.shorten(replacement)
        return replacement, silence


def _straight_through(original: Callable[..., Any], loop: Any, coro: Any, /, **kwargs: Any) -> Any:
    return original(loop, coro, **kwargs)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Name the parameters, those with a default other than None left out."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled, and without a signature
        return None
    return tuple(each.name for each in parameters if each.default is each.empty or each.default is None)


def _tasks_so_far() -> list[asyncio.Task[Any]]:
    """Return the live tasks of this thread's running loop; those of other threads cannot be asked safely."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return []
    return [task for task in asyncio.all_tasks(loop) if not task.done()]
