"""Where the objects of a class are made: the line of the program that asked for one."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched
from otel_concurrency.hooks.weak_ids import WeakIds

Site = tuple[str, int]

_MACHINERY = ("asyncio.", "anyio.", "otel_concurrency.hooks.")
_UNKNOWN: Site = ("unknown", 0)


class CreationHook:
    """Notes where each instance of some classes is made, from now on and while it lives.

    Args:
        classes: Whose `__init__` tells of it.
    """

    def __init__(self, *classes: type) -> None:
        self._sites: WeakIds[Site] = WeakIds()
        self._patches = Patches([Patch(each, "__init__", switched(self._observe)) for each in classes])
        self.clear = self._sites.clear

    def __repr__(self) -> str:
        return f"<CreationHook {self._patches}>"

    def install(self) -> None:
        """Patch; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put back what was there, and forget."""
        self._patches.remove()
        self.clear()

    def site(self, it: object) -> str | None:
        """Return where an object was made, `module:line`; None if that is not known."""
        site = self._sites.get(it)
        return _shown(site) if site is not None else None

    def alive(self) -> Iterator[tuple[Any, str]]:
        """Go through the instances that live, each with where it was made."""
        for it, site in self._sites.items():
            yield it, _shown(site)

    def _observe(self, original: Callable[..., None], switch: Switch) -> Callable[..., None]:
        frame, put = sys._getframe, self._sites.put

        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(self, *args, **kwargs)
            if switch.is_on:
                try:
                    put(self, _site(frame(1), self))
                except TypeError:  # of a class that takes no weak references
                    pass

        return __init__


def _site(frame: FrameType | None, it: object) -> Site:
    """Return the first place above that is neither asyncio's or AnyIO's nor the constructor of a subclass."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if not (module.startswith(_MACHINERY) or _constructs(frame, it)):
            return module, frame.f_lineno
        frame = frame.f_back
    return _UNKNOWN


def _constructs(frame: FrameType, it: object) -> bool:
    code = frame.f_code
    return code.co_name == "__init__" and any(
        getattr(vars(kind).get("__init__"), "__code__", None) is code for kind in type(it).__mro__
    )


def _shown(site: Site) -> str:
    return f"{site[0]}:{site[1]}"
