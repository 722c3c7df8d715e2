"""Exceptions that nobody caught in a child of `multiprocessing`, which prints them to standard error.

The child runs its finalizers while such an exception is on its way out (`BaseProcess._bootstrap`: they stand
in a `finally`), so one of them sees it as the exception that is being handled. It comes before the one that
exports for the last time.
"""

from __future__ import annotations

import sys
from types import ModuleType

from otel_concurrency.hooks.child_exit import LAST, SPAWNED, ChildExitHook
from otel_concurrency.hooks.failures import Failures


class ProcessFailureHook(ChildExitHook):
    """Notes what ends a child.

    Args:
        failures: Takes the notes.
    """

    def __init__(self, failures: Failures) -> None:
        super().__init__(_nothing, self._look, priority=LAST + 1)
        self._failures = failures

    def _register(self, util: ModuleType) -> None:
        known = len(self._known)
        super()._register(util)
        if (
            len(self._known) > known and SPAWNED in sys.orig_argv
        ):  # it calls nothing that was given to `register_after_fork`
            self._begin(util)

    def _look(self) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            self._failures.note("process", error, is_here=True, may_act=True)


def _nothing() -> None:
    pass
