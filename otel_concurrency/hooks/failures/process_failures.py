"""Exceptions that nobody caught in a child of `multiprocessing`, which prints them to standard error.

Up to CPython 3.13 the child runs its finalizers while such an exception is on its way out: they stand in a
`finally` of `BaseProcess._bootstrap`. So one of them sees it as what is being handled, before the one that
exports for the last time. From 3.14 on they come later, and the child's `run` is wrapped: the traceback that
it prints has one frame more.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.patch import Patch
from otel_concurrency.hooks.processes.child_exit import LAST, SPAWNED, ChildExitHook


class ProcessFailureHook(ChildExitHook):
    """Notes what ends a child.

    Args:
        failures: Takes the notes.
    """

    def __init__(self, failures: Failures) -> None:
        super().__init__(_nothing, lambda: self._note(sys.exc_info()[1]), priority=LAST + 1)
        self._failures = failures
        self._patches: list[Patch] = []

    def remove(self) -> None:
        """Do nothing in children that start from now on."""
        super().remove()
        while self._patches:
            self._patches.pop().remove()

    def _register(self, util: ModuleType) -> None:
        base = getattr(getattr(util, "process", None), "BaseProcess", None)
        if base is not None and "_exit_function" not in inspect.unwrap(base._bootstrap).__code__.co_names:
            self._patches.append(Patch(base, "_bootstrap", self._around))
            self._patches[-1].install()
            return
        known = len(self._known)
        super()._register(util)
        if len(self._known) > known and SPAWNED in sys.orig_argv:  # it calls nothing that was registered
            self._begin(util)

    def _around(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        def _bootstrap(process: Any, *args: Any, **kwargs: Any) -> Any:
            if self._is_active:
                process.run = self._noting(process.run)
            return original(process, *args, **kwargs)

        _bootstrap.__wrapped__ = original  # type: ignore[attr-defined]
        return _bootstrap, lambda: None

    def _noting(self, run: Callable[[], Any]) -> Callable[[], Any]:
        def run_noting() -> Any:
            try:
                return run()
            except BaseException as error:
                self._note(error)
                raise

        return run_noting

    def _note(self, error: BaseException | None) -> None:
        if error is not None:
            self._failures.note("process", error, is_here=True, may_act=True)


def _nothing() -> None:
    pass
