"""A method of every event loop class, known now or made later, led through a replacement of ours.

Every loop class derives from `asyncio.AbstractEventLoop`: asyncio's own by way of `BaseEventLoop`, uvloop's
and winloop's beside it (a Python class on top of a compiled one, so its attributes can be set).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

from otel_concurrency.hooks.patch import Patch

_logger = logging.getLogger(__name__)

Watcher = Callable[[type], None]


class LoopMethodPatches:
    """The patches of one method; where a class only inherits it, the class that has it is patched.

    Args:
        method: Its name.
        make_replacement: As for `Patch`.
        loss: What is missing where a class cannot be patched: the end of a sentence.
    """

    def __init__(
        self,
        method: str,
        make_replacement: Callable[[Any], tuple[Any, Callable[[], None]]],
        *,
        loss: str,
    ) -> None:
        self._method = method
        self._make_replacement = make_replacement
        self._loss = loss
        self._patches: list[Patch] = []
        self._stop_watching: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "removed" if self._stop_watching is None else "installed"
        return f"<LoopMethodPatches {self._method} [{state}] {self._patches}>"

    @property
    def is_installed(self) -> bool:
        """Whether the classes are patched."""
        return self._stop_watching is not None

    def install(self) -> None:
        """Patch all loop classes; a second call changes nothing."""
        if self._stop_watching is not None:
            return
        self._stop_watching = _watch_new_classes(self._patch)
        for loop_class in _loop_classes(asyncio.AbstractEventLoop):
            self._patch(loop_class)

    def remove(self) -> None:
        """Put everything back, last first."""
        while self._patches:
            self._patches.pop().remove()
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None

    def _patch(self, loop_class: type) -> None:
        if not self._is_wanted(loop_class):
            return
        patch = Patch(loop_class, self._method, self._make_replacement)
        try:
            patch.install()
        except (AttributeError, TypeError):  # a class that cannot be changed
            _logger.warning("%s.%s cannot be patched; %s", loop_class.__qualname__, self._method, self._loss)
        else:
            self._patches.append(patch)

    def _is_wanted(self, loop_class: type) -> bool:
        """Whether no class that we patched covers it: one that overrides a method usually calls that."""
        found = getattr(loop_class, self._method, None)
        if found is None or found is vars(asyncio.AbstractEventLoop).get(self._method):
            return False
        if issubclass(loop_class, asyncio.BaseEventLoop):
            return loop_class is asyncio.BaseEventLoop
        return not any(issubclass(loop_class, patch.owner) for patch in self._patches)


_watchers: tuple[Watcher, ...] = ()
_new_classes: Patch | None = None


def _watch_new_classes(watcher: Watcher) -> Callable[[], None]:
    """Tell of each class made from now on; one patch serves all who want to know."""
    global _watchers, _new_classes
    if _new_classes is None:
        _new_classes = Patch(asyncio.AbstractEventLoop, "__init_subclass__", _tell_of_new_classes)
        _new_classes.install()
    _watchers = (*_watchers, watcher)

    def stop() -> None:
        global _watchers, _new_classes
        _watchers = tuple(each for each in _watchers if each is not watcher)
        if not _watchers and _new_classes is not None:
            _new_classes.remove()
            _new_classes = None

    return stop


def _tell_of_new_classes(original: Callable[..., None]) -> tuple[Any, Callable[[], None]]:
    def __init_subclass__(cls: Any, /, **kwargs: Any) -> None:  # noqa: N807
        super(asyncio.AbstractEventLoop, cls).__init_subclass__(**kwargs)
        for watcher in _watchers:
            watcher(cls)

    return classmethod(__init_subclass__), lambda: None


def _loop_classes(base: type[Any]) -> Iterator[type[Any]]:
    for loop_class in base.__subclasses__():
        yield loop_class
        yield from _loop_classes(loop_class)
