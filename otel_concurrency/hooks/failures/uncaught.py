"""Exceptions that nobody caught, in the main thread and in others.

`sys.excepthook` is wrapped: whatever stands there is called as before. A program that puts a hook of its own
in our place later need not call the one before it; for an exception that ends the main thread it is enough
that the interpreter keeps it as `sys.last_value` (CPython `Python/pythonrun.c`), which we look at in the end.

Threads hand their exceptions to `threading.excepthook` by way of a function that each makes at its beginning
(`threading._make_invoke_excepthook`). Ours stands around that one, so `threading.excepthook` is whatever the
program makes of it, at any time.

On CPython 3.10 `exceptiongroup` teaches Python to print groups if nobody has replaced `sys.excepthook` by the
time of its import (`exceptiongroup/_formatting.py`), so ours steps aside for that.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch

_PRINTS_GROUPS = "exceptiongroup._formatting"

_logger = logging.getLogger(__name__)


class UncaughtHook:
    """Notes exceptions that nobody caught.

    Args:
        failures: Takes the notes.
        origin_of: Returns where an exception was raised, as `Failures.note` takes it; None: nobody knows.
    """

    def __init__(self, failures: Failures, origin_of: Callable[[BaseException], object]) -> None:
        self._failures = failures
        self._origin_of = origin_of
        self._seen = 0  # id of the exception that the main thread ended with
        self._patches = [
            Patch(sys, "excepthook", self._observe_main),
            Patch(threading, "_make_invoke_excepthook", self._observe_threads),
        ]
        self._stop_awaiting: Callable[[], None] = _do_nothing

    def __repr__(self) -> str:
        return f"<UncaughtHook {self._patches}>"

    def install(self) -> None:
        """Attach to both; a second call changes nothing."""
        for patch in self._patches:
            try:
                patch.install()
            except AttributeError:
                _logger.warning("threading has no %s; exceptions in threads are not reported", patch.name)
        if sys.version_info < (3, 11):
            self._stop_awaiting()
            self._stop_awaiting = when_imported(_PRINTS_GROUPS, _do_nothing, around=self._aside)

    def remove(self) -> None:
        """Put everything back, last first."""
        self._stop_awaiting()
        self._stop_awaiting = _do_nothing
        for patch in reversed(self._patches):
            patch.remove()

    def look_back(self) -> None:
        """Note what has ended the main thread, if a hook that came after ours has kept it from us."""
        error = getattr(sys, "last_value", None)
        ours = self._patches[0]
        if (
            error is not None
            and id(error) != self._seen
            and not ours.is_outermost
            and _went_all_the_way(error)
        ):
            self._note_main(error)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Let `sys.excepthook` be what it would be without us."""
        ours = self._patches[0]
        if not ours.is_outermost:
            yield
            return
        ours.remove()
        try:
            yield
        finally:
            ours.install()

    def _note_main(self, error: BaseException) -> None:
        if hasattr(sys, "ps1"):  # somebody tries things out
            return
        self._seen = id(error)
        is_main = threading.current_thread() is threading.main_thread()
        origin = self._origin_of(error) if is_main else None
        self._failures.note("main" if is_main else "thread", error, origin=origin, is_here=True, may_act=True)

    def _observe_main(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        is_on = True

        @functools.wraps(original)
        def excepthook(kind: Any, value: Any, traceback: Any, /) -> Any:
            if is_on and isinstance(value, BaseException):
                self._note_main(value)
            return original(kind, value, traceback)

        def silence() -> None:
            nonlocal is_on
            is_on = False

        return excepthook, silence

    def _observe_threads(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        failures = self._failures
        is_on = True

        @functools.wraps(original)
        def _make_invoke_excepthook() -> Callable[[Any], None]:
            invoke = original()

            def invoke_excepthook(thread: Any) -> Any:
                if is_on:
                    failures.note(
                        "thread",
                        sys.exc_info()[1],
                        # From 3.14 on a thread is outside of its context here.
                        context=getattr(thread, "_context", None),
                        is_here=True,
                        may_act=True,
                    )
                return invoke(thread)

            return invoke_excepthook

        def silence() -> None:
            nonlocal is_on
            is_on = False

        return _make_invoke_excepthook, silence


def _do_nothing(module: ModuleType | None = None) -> None:
    pass


def _went_all_the_way(error: BaseException) -> bool:
    """Whether it came out of the main module: debuggers and test runners leave others behind there."""
    at = error.__traceback__
    return at is not None and at.tb_frame.f_globals.get("__name__") in ("__main__", "runpy")
