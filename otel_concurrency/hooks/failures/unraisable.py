"""Exceptions that have nobody to go to, from a `__del__` for instance: `sys.unraisablehook`.

Whatever stands there is called as before. A hook that a program puts in our place later, and that does not
call the one before it, keeps them from us: there is no other place where Python tells of them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.patch import Patch


class UnraisableHook:
    """Notes unraisable exceptions.

    Args:
        failures: Takes the notes.
    """

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._patch = Patch(sys, "unraisablehook", self._observe)

    def __repr__(self) -> str:
        return f"<UnraisableHook {self._patch}>"

    def install(self) -> None:
        """Attach; a second call changes nothing."""
        self._patch.install()

    def remove(self) -> None:
        """Put back what was there."""
        self._patch.remove()

    def _observe(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        note = self._failures.note
        is_on = True

        @functools.wraps(original)
        def unraisablehook(unraisable: Any, /) -> Any:
            if is_on and unraisable.exc_value is not None and not _is_noted(unraisable.exc_value):
                note("unraisable", unraisable.exc_value, is_here=True)
            return original(unraisable)

        def silence() -> None:
            nonlocal is_on
            is_on = False

        return unraisablehook, silence


def _is_noted(error: BaseException) -> bool:
    """Whether it only says what unawaited.py has noted: a warning that a filter has made an exception of."""
    return type(error) is RuntimeWarning and "was never awaited" in str(error)
