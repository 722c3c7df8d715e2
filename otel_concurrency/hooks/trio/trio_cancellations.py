"""Why a task of trio was cancelled, which its `Cancelled` says, and the deadlines that have cancelled some.

`trio.Cancelled` has a `source` since trio 0.31; scopes hear by `CancelScope._cancel` who cancels them
(`trio/_core/_run.py`). With an older trio nobody knows. trio is never imported for our sake.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.tasks.cancellations import SHUTDOWN, TASK_GROUP, TIMEOUT, UNKNOWN, Cancellation
from otel_concurrency.probes.trio_tasks import is_cancellation, named_by

MAX_SCOPES = 1000
"""Scopes inside of one whose deadline is over that are searched for the task that it belongs to."""

_RUN = "trio._core._run"
_REASONS = {"deadline": TIMEOUT, "nursery": TASK_GROUP, "shutdown": SHUTDOWN}
_TASK = re.compile(r"<Task '(.*)' at 0x[0-9a-f]+>", re.DOTALL)

_logger = logging.getLogger(__name__)


def why(error: BaseException) -> Cancellation | None:
    """Tell what a cancellation of trio is about; None for any other exception."""
    cancelled = getattr(sys.modules.get("trio"), "Cancelled", None)
    if cancelled is None or not is_cancellation(error, cancelled):
        return None
    found: Any = error
    while not isinstance(found, cancelled):  # a group of nothing else
        found = found.exceptions[0]
    reason = _REASONS.get(getattr(found, "source", ""), UNKNOWN)
    by = _TASK.match(getattr(found, "source_task", None) or "")
    return Cancellation(reason, by[1] if by and reason != SHUTDOWN else "")  # that is a task of trio's own


class TrioTimeoutHook:
    """Tells of each deadline that cancels a scope.

    Args:
        expired: Called with the coroutine of the task that has entered the scope; must not raise.
    """

    def __init__(self, expired: Callable[[Any], object]) -> None:
        self._expired = expired
        self._patch = LatePatch(
            "trio",
            lambda trio: Patch(trio.CancelScope, "_cancel", switched(self._observed)),
            loss="its timeouts are not counted",
        )

    def __repr__(self) -> str:
        return f"<TrioTimeoutHook {self._patch}>"

    def install(self) -> None:
        """Patch trio, now or when it is imported; a second call changes nothing."""
        self._patch.install()

    def remove(self) -> None:
        """Put everything back."""
        self._patch.remove()

    def _observed(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _cancel(self_: Any, cancel_reason: Any) -> Any:
            if (
                switch.is_on
                and getattr(cancel_reason, "source", None) == "deadline"
                and not self_._cancel_called
            ):
                self._note(self_)
            return original(self_, cancel_reason)

        return _cancel

    def _note(self, scope: Any) -> None:
        try:
            task = _entered_by(scope)
            if task is not None:
                self._expired(named_by(task.coro) or task.coro)
        except Exception:
            _logger.debug("A timeout is not counted", exc_info=True)


def _entered_by(scope: Any) -> Any:
    """Return the task that has entered a scope: the only one in there whose nursery is not in there, too."""
    if scope._cancel_status is None:  # it is entering, and too late
        return getattr(sys.modules[_RUN].GLOBAL_RUN_CONTEXT, "task", None)
    inside = [scope._cancel_status]
    for status in inside:
        inside.extend(status._children)
        if len(inside) > MAX_SCOPES:
            break
    known = {id(status) for status in inside}
    for status in inside:
        for task in status._tasks:
            nursery = task.parent_nursery
            if nursery is None or id(nursery._cancel_status) not in known:
                return task
    return None
