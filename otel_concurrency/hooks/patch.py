"""The only way to replace something that is not ours, and to let go of it again.

A patch looks in `vars(owner)`, not `getattr(owner, …)`: a class that inherited the attribute gets one of its
own, and loses it again on removal. Whoever patched on top of us keeps their patch; ours stays beneath it.
Removed or not, a replacement that somebody still holds falls silent: it does what the original does, and
nothing else. What could be pickled by name can be pickled still.
"""

from __future__ import annotations

import logging
import operator
import sys
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any, Protocol

_MISSING = object()
_logger = logging.getLogger(__name__)


class Patch:
    """One attribute of one owner, replaced and put back.

    Args:
        owner: A class or a module.
        name: The attribute.
        make_replacement: Called with what the attribute was; returns what it shall be, and a function that
            silences it.
        absent: What the attribute is taken to be where the owner has none; without it, that is an error.
    """

    def __init__(
        self,
        owner: Any,
        name: str,
        make_replacement: Callable[[Any], tuple[Any, Callable[[], None]]],
        *,
        absent: Any = _MISSING,
    ) -> None:
        self.owner = owner
        self.name = name
        self._make_replacement = make_replacement
        self._absent = absent
        self._silence: Callable[[], None] = _do_nothing
        self._before: Any = _MISSING
        self._replacement: Any = _MISSING

    def __repr__(self) -> str:
        state = (
            "removed"
            if self._replacement is _MISSING
            else "installed"
            if self.is_outermost
            else "patched over"
        )
        return f"<Patch {getattr(self.owner, '__name__', self.owner)}.{self.name} [{state}]>"

    @property
    def is_outermost(self) -> bool:
        """Whether the attribute is our replacement itself, with nobody on top."""
        return self._replacement is not _MISSING and vars(self.owner).get(self.name) is self._replacement

    def install(self) -> None:
        """Replace the attribute; a second call changes nothing.

        Raises:
            AttributeError: The owner has no such attribute, or does not let it be set.
        """
        if self._replacement is not _MISSING:
            return
        before = vars(self.owner).get(self.name, _MISSING)
        if self._absent is _MISSING:
            original = getattr(self.owner, self.name)
        else:
            original = getattr(self.owner, self.name, self._absent)
        replacement, silence = self._make_replacement(original)
        setattr(self.owner, self.name, replacement)
        self._before, self._replacement, self._silence = before, vars(self.owner)[self.name], silence
        _let_be_found(self.owner, self.name, replacement)

    def remove(self) -> bool:
        """Put back what was there before.

        Returns:
            False where somebody patched on top of us: then ours stays, silent, and theirs goes on as it was.
        """
        if self._replacement is _MISSING:
            return True
        was_outermost = self.is_outermost
        self._silence()
        if not was_outermost:
            _logger.info(
                "%s.%s was patched again after us; that patch stays, and ours beneath it is silent",
                getattr(self.owner, "__name__", self.owner),
                self.name,
            )
        elif self._before is _MISSING:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self._before)
        self._before = self._replacement = _MISSING
        return was_outermost


class Installable(Protocol):
    """What is put in place, and taken out of it again."""

    def install(self) -> None:
        """Put it in place; a second call changes nothing."""
        ...

    def remove(self) -> object:
        """Put back what was there."""
        ...


class Patches:
    """Patches that come and go together.

    Args:
        patches: In the order in which they are installed.
    """

    def __init__(self, patches: Iterable[Installable]) -> None:
        self._patches = tuple(patches)

    def __repr__(self) -> str:
        return repr(list(self._patches))

    def install(self) -> None:
        """Install all; a second call changes nothing."""
        for patch in self._patches:
            patch.install()

    def remove(self) -> None:
        """Put everything back, last first."""
        for patch in reversed(self._patches):
            patch.remove()


class Switch:
    """Whether a replacement still does more than the original.

    Each replacement has one of its own: one that others patched over stays silent when its hook comes back.
    """

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = True

    def turn_off(self) -> None:
        """From now on the replacement does what the original does."""
        self.is_on = False


def switched(
    make_replacement: Callable[[Any, Switch], Any],
) -> Callable[[Any], tuple[Any, Callable[[], None]]]:
    """Let a replacement be silenced by a switch that it is handed; for `Patch`."""

    def make(original: Any) -> tuple[Any, Callable[[], None]]:
        switch = Switch()
        return make_replacement(original, switch), switch.turn_off

    return make


def _let_be_found(owner: Any, name: str, replacement: Any) -> None:
    """Give a function the name of its place, where its own leads elsewhere, for pickle to write down.

    `os._exit` says that it is of `posix`; a method that was inherited, that it is of the base class.
    """
    if not (isinstance(replacement, FunctionType) and isinstance(owner, (ModuleType, type))):
        return
    try:
        found = operator.attrgetter(replacement.__qualname__)(sys.modules.get(replacement.__module__))
    except AttributeError:
        found = None
    if found is not replacement:
        is_module = isinstance(owner, ModuleType)
        replacement.__module__ = owner.__name__ if is_module else owner.__module__
        replacement.__qualname__ = name if is_module else f"{owner.__qualname__}.{name}"


def _do_nothing() -> None:
    pass
