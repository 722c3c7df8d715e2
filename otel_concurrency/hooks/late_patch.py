"""Patches of something that the program may not have imported yet, and is never imported for our sake."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import ModuleType

from otel_concurrency.hooks.imports import when_imported
from otel_concurrency.hooks.patch import Patch

_logger = logging.getLogger(__name__)


class LatePatch:
    """Installs a patch, or several, as soon as a module is there.

    Args:
        module: The module's full name.
        make: Called with the module; returns the patch or the patches, or raises AttributeError where the
            module is another one than we know. Either all of them are installed, or none.
        loss: What does not work then.
    """

    def __init__(
        self, module: str, make: Callable[[ModuleType], Patch | Sequence[Patch]], *, loss: str
    ) -> None:
        self._module = module
        self._make = make
        self._loss = loss
        self._patches: list[Patch] = []
        self._stop_awaiting: Callable[[], None] | None = None

    def __repr__(self) -> str:
        awaits = f"<LatePatch awaiting {self._module}>"
        if self._patches:
            return ", ".join(map(repr, self._patches))
        return awaits if self._stop_awaiting is not None else "<LatePatch [removed]>"

    def install(self) -> None:
        """Patch now, or when it is imported; a second call changes nothing."""
        if self._stop_awaiting is None:
            self._stop_awaiting = when_imported(self._module, self._join)

    def remove(self) -> None:
        """Put everything back."""
        if self._stop_awaiting is not None:
            self._stop_awaiting()
            self._stop_awaiting = None
        self._take_back()

    def _join(self, module: ModuleType) -> None:
        try:
            made = self._make(module)
            for patch in (made,) if isinstance(made, Patch) else made:
                patch.install()
                self._patches.append(patch)
        except AttributeError:
            self._take_back()
            _logger.debug("this %s is another one than we know; %s", self._module, self._loss)

    def _take_back(self) -> None:
        while self._patches:
            self._patches.pop().remove()
