"""Small, stable ids for event loops."""

from __future__ import annotations

import asyncio
import threading
import weakref

MAX_LOOPS = 16
"""Loops alive at once with an id of their own; all further ones share the id None."""

_TYPE_BY_MODULE = {
    "uvloop": "uvloop",
    "winloop": "winloop",
    "asyncio.selector_events": "selector",
    "asyncio.proactor_events": "proactor",
    "trio": "trio",  # the `Runner` of one `trio.run`
}


def loop_type(loop: asyncio.AbstractEventLoop) -> str:
    """Return one of `LoopRow.loop_type`, by the nearest base class that tells."""
    for base in type(loop).__mro__:
        module = base.__module__
        kind = _TYPE_BY_MODULE.get(module) or _TYPE_BY_MODULE.get(module.partition(".")[0])
        if kind is not None:
            return kind
    return "other"


class LoopIndex:
    """Gives each live loop the lowest free id; an id comes back when its loop is gone."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as a forked child must: another thread may have held the lock at the fork."""
        self._lock = threading.RLock()
        self._references: list[weakref.ref[asyncio.AbstractEventLoop]] = []
        self._types: list[str] = []

    def __call__(self, loop: asyncio.AbstractEventLoop) -> tuple[int | None, str]:
        """Return the loop's id and type; the id is None beyond the limit, and the type then `other`."""
        with self._lock:
            free = None
            for index, reference in enumerate(self._references):
                known = reference()
                if known is loop:
                    return index, self._types[index]
                if known is None and free is None:
                    free = index
            try:
                reference = weakref.ref(loop)
            except TypeError:
                return None, "other"
            kind = loop_type(loop)
            if free is not None:
                self._references[free], self._types[free] = reference, kind
                return free, kind
            if len(self._references) == MAX_LOOPS:
                return None, "other"
            self._references.append(reference)
            self._types.append(kind)
            return len(self._references) - 1, kind

    def known(self, loop: object) -> tuple[int | None, str] | None:
        """Return the id and type of a loop that has one, None of any other; takes no lock."""
        for index, reference in enumerate(self._references):
            if reference() is loop:
                return index, self._types[index]
        return None

    def alive(self) -> list[asyncio.AbstractEventLoop]:
        """Return the loops that have an id; takes no lock."""
        return [loop for reference in list(self._references) if (loop := reference()) is not None]


LOOP_IDS = LoopIndex()
"""The ids that all metrics of this process share."""
