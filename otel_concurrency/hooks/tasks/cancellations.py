"""Why a task was cancelled, where somebody can know: noted by whoever cancels, asked by whoever tells of it.

`Task.cancel` itself is C code and tells nobody; but these cancel on behalf of others, and are Python's own:
`asyncio.timeout` (and `wait_for`, which is built on it from 3.12 on), `TaskGroup`, `gather`, and the end of
`asyncio.run`. Leans on CPython `asyncio/{timeouts,taskgroups,tasks,runners}.py`, 3.10 to 3.15.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from otel_concurrency.hooks.patch import Patch, Switch, switched

TIMEOUT, TASK_GROUP, GATHER, SHUTDOWN, UNKNOWN = "timeout", "task_group", "gather", "shutdown", "unknown"

_logger = logging.getLogger(__name__)


class Cancellation(NamedTuple):
    """Why a task was cancelled.

    Attributes:
        reason: `timeout`, `task_group`, `gather`, `shutdown`, or `unknown`.
        by: Name of the task that has cancelled it, or empty.
    """

    reason: str
    by: str


_NOBODY = Cancellation(UNKNOWN, "")


class CancellationHook:
    """Notes why tasks are cancelled.

    Args:
        expired: Called with the task whose time is over, or that was waited for as long; must not raise.
    """

    def __init__(self, expired: Callable[[Any], object]) -> None:
        self._expired = expired
        self._known: weakref.WeakKeyDictionary[Any, tuple[Cancellation, weakref.ref[Any] | None]]
        self._known = weakref.WeakKeyDictionary()
        self._patches: list[Patch] = []

    def __repr__(self) -> str:
        return f"<CancellationHook {self._patches}>"

    def install(self) -> None:
        """Attach to whatever cancels, where this Python has it; a second call changes nothing."""
        if self._patches:
            return
        for module, owner, name, make in (
            ("asyncio.timeouts", "Timeout", "_on_timeout", self._around_timeout),  # 3.11
            ("asyncio.taskgroups", "TaskGroup", "_abort", self._around_abort),  # 3.11
            ("asyncio.tasks", "_GatheringFuture", "cancel", self._around_gather),
            ("asyncio.tasks", None, "_cancel_and_wait", self._around_wait_for),
            ("asyncio.runners", None, "_cancel_all_tasks", self._around_shutdown),
        ):
            try:
                found: Any = importlib.import_module(module)
                patch = Patch(found if owner is None else getattr(found, owner), name, switched(make))
                patch.install()
            except (ImportError, AttributeError):
                continue
            self._patches.append(patch)

    def remove(self) -> None:
        """Put everything back, last first."""
        while self._patches:
            self._patches.pop().remove()

    def why(self, task: Any) -> Cancellation:
        """Tell why a task is being cancelled; it may have got over an earlier cancellation."""
        try:
            cancellation, timeout = self._known.get(task, (_NOBODY, None))
        except TypeError:  # a task of somebody's own
            return _NOBODY
        if timeout is not None:
            state = getattr(timeout(), "_state", None)
            return cancellation if getattr(state, "value", "") == "expiring" else _NOBODY
        return cancellation

    def _note(self, tasks: Iterable[Any], reason: str, by: Any = None, timeout: Any = None) -> None:
        try:
            name = by.get_name() if isinstance(by, asyncio.Task) else ""
            reference = None if timeout is None else weakref.ref(timeout)
            for task in tasks:
                if isinstance(task, asyncio.Task) and not task.done():
                    self._known[task] = (Cancellation(reason, name), reference)
                    if reason == TIMEOUT:
                        self._expired(task)
        except Exception:
            _logger.debug("A cancellation is not explained", exc_info=True)

    def _around_timeout(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _on_timeout(timeout: Any) -> Any:
            if switch.is_on:
                self._note([getattr(timeout, "_task", None)], TIMEOUT, timeout=timeout)
            return original(timeout)

        return _on_timeout

    def _around_abort(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _abort(group: Any) -> Any:
            if switch.is_on:
                tasks = getattr(group, "_tasks", ())
                self._note(tuple(tasks), TASK_GROUP, getattr(group, "_parent_task", None))
            return original(group)

        return _abort

    def _around_gather(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def cancel(future: Any, *args: Any, **kwargs: Any) -> Any:
            if switch.is_on:
                self._note(tuple(getattr(future, "_children", ())), GATHER)
            return original(future, *args, **kwargs)

        return cancel

    def _around_wait_for(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _cancel_and_wait(fut: Any, *args: Any, **kwargs: Any) -> Any:
            # `wait_for` cancels as well when it is cancelled itself, and then from an `except`.
            if switch.is_on and not isinstance(sys.exc_info()[1], asyncio.CancelledError):
                self._note([fut], TIMEOUT, _current_task())
            return original(fut, *args, **kwargs)

        return _cancel_and_wait

    def _around_shutdown(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _cancel_all_tasks(loop: Any) -> Any:
            if switch.is_on:
                self._note(_all_tasks(loop), SHUTDOWN)
            return original(loop)

        return _cancel_all_tasks


def _all_tasks(loop: Any) -> Iterable[Any]:
    try:
        return asyncio.all_tasks(loop)
    except Exception:
        return ()


def _current_task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
