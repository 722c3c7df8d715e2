"""Coroutines that nobody awaited: `warnings._warn_unawaited_coroutine`, which CPython calls as they are let
go of (`_PyErr_WarnUnawaitedCoroutine` in `Python/_warnings.c`), whatever the filters make of the warning.

The warning names the line that the caller's caller is at. A frame of ours between them would be taken for
that, and every such warning would come from one line: so our function says of its file what `warnings` says
of the import system's, and is passed over like that (`is_internal_frame`, the same file).
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from typing import Any

from otel_concurrency.hooks.failures.failures import Failures
from otel_concurrency.hooks.failures.raised import Place
from otel_concurrency.hooks.patch import Patch
from otel_concurrency.probes.pure import coroutine_name

_PASSED_OVER = "<otel_concurrency, as importlib._bootstrap>"

_logger = logging.getLogger(__name__)


class UnawaitedHook:
    """Notes coroutines that nobody awaited.

    Args:
        failures: Takes the notes.
    """

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._patch = Patch(warnings, "_warn_unawaited_coroutine", self._observe)

    def __repr__(self) -> str:
        return f"<UnawaitedHook {self._patch}>"

    def install(self) -> None:
        """Attach; a second call changes nothing."""
        try:
            self._patch.install()
        except AttributeError:
            _logger.warning("warnings has no %s; coroutines never awaited are not reported", self._patch.name)

    def remove(self) -> None:
        """Put back what was there."""
        self._patch.remove()

    def _observe(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        note = self._note

        def _warn_unawaited_coroutine(coro: Any) -> Any:
            note(coro)
            return original(coro)

        _warn_unawaited_coroutine.__code__ = _warn_unawaited_coroutine.__code__.replace(
            co_filename=_PASSED_OVER
        )

        def silence() -> None:
            nonlocal note
            note = _ignore

        return functools.wraps(original)(_warn_unawaited_coroutine), silence

    def _note(self, coroutine: Any) -> None:
        try:
            name, code = coroutine_name(coroutine), coroutine.cr_code
            self._failures.note(
                "coroutine_never_awaited",
                None,
                is_here=True,
                message=f"coroutine '{coroutine.__qualname__}' was never awaited",
                place=Place(name, code.co_filename, code.co_firstlineno),
                coroutine=name,
            )
        except Exception:
            self._failures.lost += 1


def _ignore(coroutine: Any) -> None:
    pass
