"""Asynchronous generators that raise while trio closes them, which it says in a log record of its own.

trio closes what was let go of in a system task, in the context of the run. Where it was let go of, its
finaliser asks for the generator's name (`name_asyncgen`, `trio/_core/_asyncgens.py`), and so do we for the
context there; inside of a collection that is anybody's. trio is never imported for our sake.
"""

from __future__ import annotations

import functools
import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.failures import reported_logs
from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Switch, switched

_MODULE = "trio._core._asyncgens"
_DEPTH = 20  # frames between the filter and trio's function


class TrioAsyncgenHook(logging.Filter):
    """Lets trio's log records through, and notes each.

    Args:
        failures: Takes the notes.
    """

    def __init__(self, failures: Failures) -> None:
        super().__init__()
        self._failures = failures
        self._origins: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()
        self._patch = LatePatch(
            "trio",
            lambda trio: Patch(trio._core._asyncgens, "name_asyncgen", switched(self._observed)),
            loss="failures of its asynchronous generators are told in no trace",
        )

    def __repr__(self) -> str:
        return f"<TrioAsyncgenHook {self._patch}>"

    def install(self) -> None:
        """Listen to trio's logger, and patch trio, now or when it is imported; again changes nothing."""
        logging.getLogger(reported_logs.TRIO_ASYNCGENS).addFilter(self)
        self._patch.install()

    def remove(self) -> None:
        """Let go of both."""
        self._patch.remove()
        logging.getLogger(reported_logs.TRIO_ASYNCGENS).removeFilter(self)
        self._origins.clear()

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            origin = self._origins.pop(_closing(), None)
            if self._failures.note("asyncgen", error, origin=origin, may_act=True):
                reported_logs.add(record)
        return True

    def _observed(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def name_asyncgen(agen: Any) -> Any:
            if switch.is_on:
                self._remember(agen)
            return original(agen)

        return name_asyncgen

    def _remember(self, agen: Any) -> None:
        try:
            origin = self._failures.origin_here()
            if origin is not None:
                self._origins.setdefault(agen, origin)
        except Exception:
            self._failures.lost += 1


def _closing() -> Any:
    """Return the generator that trio is closing above us; this function where there is none."""
    frame: Any = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            break
        if frame.f_globals.get("__name__") == _MODULE and "agen" in frame.f_locals:
            return frame.f_locals["agen"]
        frame = frame.f_back
    return _closing
