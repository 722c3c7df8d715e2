"""A patch of something that the program may not have imported yet, and is never imported for our sake."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch

_logger = logging.getLogger(__name__)


class LatePatch:
    """Installs one patch as soon as a module is there.

    Args:
        module: The module's full name.
        make: Called with the module; returns the patch, or raises AttributeError where the module is another
            one than we know.
        loss: What does not work then.
    """

    def __init__(self, module: str, make: Callable[[ModuleType], Patch], *, loss: str) -> None:
        self._module = module
        self._make = make
        self._loss = loss
        self._patch: Patch | None = None
        self._stop_awaiting: Callable[[], None] | None = None

    def __repr__(self) -> str:
        awaits = f"<LatePatch awaiting {self._module}>"
        return repr(self._patch or (awaits if self._stop_awaiting is not None else "<LatePatch [removed]>"))

    def install(self) -> None:
        """Patch now, or when it is imported; a second call changes nothing."""
        if self._stop_awaiting is None:
            self._stop_awaiting = when_imported(self._module, self._join)

    def remove(self) -> None:
        """Put everything back."""
        if self._stop_awaiting is not None:
            self._stop_awaiting()
            self._stop_awaiting = None
        if self._patch is not None:
            self._patch.remove()
            self._patch = None

    def _join(self, module: ModuleType) -> None:
        try:
            patch = self._make(module)
            patch.install()
        except AttributeError:
            _logger.debug("this %s is another one than we know; %s", self._module, self._loss)
        else:
            self._patch = patch
