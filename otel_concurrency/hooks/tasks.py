"""Where we attach to asyncio tasks: `create_task` of every event loop class, known now or made later.

`asyncio.create_task`, `gather`, `ensure_future`, `TaskGroup`, `run_coroutine_threadsafe`, `Runner.run` and
the finalisers of asynchronous generators all end in `loop.create_task` (CPython `asyncio/base_events.py`,
`tasks.py`; uvloop `loop.pyx`). A task factory, eager or not, stays in place and is called as before.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from otel_concurrency.hooks.patch import Patch
from otel_concurrency.probes.tasks import TaskProbe

_logger = logging.getLogger(__name__)


class TaskHook:
    """Leads every `create_task` of every loop class through a task probe.

    Args:
        probe: Follows the tasks.
    """

    def __init__(self, probe: TaskProbe) -> None:
        self._probe = probe
        self._patches: list[Patch] = []
        self._is_active = False

    def __repr__(self) -> str:
        state = "installed" if self._is_active else "removed"
        return f"<TaskHook [{state}, {self._probe.way}] {self._patches}>"

    def install(self) -> None:
        """Patch all loop classes; a second call changes nothing."""
        if self._is_active:
            return
        self._is_active = True
        self._probe.leave_untracked(_tasks_so_far())
        self._patch(asyncio.AbstractEventLoop, "__init_subclass__", self._watch_new_classes)
        for loop_class in _loop_classes(asyncio.AbstractEventLoop):
            self._patch_loop_class(loop_class)

    def remove(self) -> None:
        """Put everything back, last first."""
        self._is_active = False
        while self._patches:
            self._patches.pop().remove()

    def _patch(self, owner: type, name: str, make: Callable[[Any], tuple[Any, Callable[[], None]]]) -> None:
        patch = Patch(owner, name, make)
        try:
            patch.install()
        except (AttributeError, TypeError):  # a class that cannot be changed: say so, its tasks go uncounted
            _logger.warning("%s.%s cannot be patched; its tasks are not counted", owner.__qualname__, name)
        else:
            self._patches.append(patch)

    def _patch_loop_class(self, loop_class: type) -> None:
        if _has_its_own_create_task(loop_class):
            self._patch(loop_class, "create_task", self._observe)

    def _observe(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        create = self._probe.create_task
        wants = _parameters(original)

        # With the exact parameters no dict is built on the way, and what has its default stays at home; beyond
        # these, whatever comes goes through.
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

        return functools.wraps(original)(create_task), silence

    def _watch_new_classes(self, original: Callable[..., None]) -> tuple[Any, Callable[[], None]]:
        hook = self

        def __init_subclass__(cls: Any, /, **kwargs: Any) -> None:  # noqa: N807
            super(asyncio.AbstractEventLoop, cls).__init_subclass__(**kwargs)  # type: ignore[misc]
            if hook._is_active:
                hook._patch_loop_class(cls)

        return classmethod(__init_subclass__), lambda: None


def _straight_through(original: Callable[..., Any], loop: Any, coro: Any, /, **kwargs: Any) -> Any:
    return original(loop, coro, **kwargs)


def _loop_classes(base: type[Any]) -> Iterator[type[Any]]:
    for loop_class in base.__subclasses__():
        yield loop_class
        yield from _loop_classes(loop_class)


def _has_its_own_create_task(loop_class: type) -> bool:
    """Whether no patched class covers it: one that overrides the method usually calls what it overrides."""
    found = getattr(loop_class, "create_task", None)
    if found is None or found is vars(asyncio.AbstractEventLoop)["create_task"]:
        return False
    if issubclass(loop_class, asyncio.BaseEventLoop):
        return loop_class is asyncio.BaseEventLoop
    covered = any(
        "create_task" in vars(base) and hasattr(vars(base)["create_task"], "__wrapped__")
        for base in loop_class.__mro__
    )
    return not covered


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
