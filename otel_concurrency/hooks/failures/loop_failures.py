"""What event loops report to their exception handler, as notes of failures: in whose trace, and which task.

Tasks and futures report from `__del__`, which may be inside a garbage collection; all else comes from a
callback that the loop itself has called, unless a library reports from a `__del__` of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

from otel_concurrency.hooks.failures.asyncgens import CLOSING
from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.failures.raised import NOWHERE, Place, module_of, place_in
from otel_concurrency.hooks.tasks.creation_context import creation_context
from otel_concurrency.probes.loop_exceptions import what_about
from otel_concurrency.probes.pure import coroutine_name

_FINALISERS = ("task_never_retrieved", "future_never_retrieved", "task_destroyed_pending", "asyncgen")
_DEPTH = 50  # frames looked at for a `__del__`


class LoopFailures:
    """Notes what loops report.

    Args:
        failures: Takes the notes.
        was_collected: Whether an asynchronous generator that is being closed was found by a collection.
    """

    def __init__(self, failures: Failures, was_collected: Callable[[object], bool]) -> None:
        self._failures = failures
        self._was_collected = was_collected

    def note(self, loop: Any, report: Any) -> bool:
        """Note a report; returns whether it counts. Never raises."""
        try:
            return isinstance(report, dict) and self._note(loop, report)
        except Exception:
            self._failures.lost += 1
            return False

    def _note(self, loop: Any, report: Mapping[str, Any]) -> bool:
        kind = what_about(report)
        error = report.get("exception")
        if not isinstance(error, BaseException):
            error = None
            if kind != "task_destroyed_pending":  # a library says something: that is a log record as always
                return False
        work: Any = report.get("task") or report.get("future") or report.get("handle")
        task, coroutine, place, is_here = "", "", NOWHERE, True
        context = creation_context(work)
        if isinstance(work, asyncio.Task):
            inner: Any = work.get_coro()
            task, coroutine = work.get_name(), _name_of(inner, error)
            if kind == "task_never_retrieved" and type(inner).__name__ == CLOSING:
                kind, coroutine = "asyncgen", ""
                if self._was_collected(inner):
                    context, is_here = None, False
            if error is None:
                place = _place_of(inner, coroutine)
        return self._failures.note(
            kind,
            error,
            context=context,
            is_here=is_here,
            may_act=kind not in _FINALISERS and not _is_finalising(),
            message="" if error is not None else str(report.get("message")),
            place=place,
            task=task,
            coroutine=coroutine,
            thread_ident=getattr(loop, "_thread_id", None),
        )


def _name_of(coroutine: Any, error: BaseException | None) -> str:
    """Return `module.qualname`: the frame that knew the module is gone, but in the traceback."""
    name = coroutine_name(coroutine)
    module = module_of(getattr(coroutine, "cr_code", None), error)
    return f"{module}.{name}" if module and not name.startswith(f"{module}.") else name


def _place_of(coroutine: Any, name: str) -> Place:
    """Return where a coroutine stands that will not go on; where it began, if it was closed already."""
    frame, code = getattr(coroutine, "cr_frame", None), getattr(coroutine, "cr_code", None)
    if frame is not None:
        return place_in(frame, frame.f_lineno)._replace(function=name)
    return NOWHERE if code is None else Place(name, code.co_filename, code.co_firstlineno)


def _is_finalising() -> bool:
    """Whether somebody's `__del__` is what runs."""
    frame: Any = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return False
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
