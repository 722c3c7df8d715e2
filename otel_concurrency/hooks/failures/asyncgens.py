"""Asynchronous generators that a garbage collection has found, and that their event loop then closes.

The loop closes them in a task (`_asyncgen_finalizer_hook`, CPython `asyncio/base_events.py`, uvloop
`loop.pyx`), which takes the context that is current where the generator is let go of. That is the program's
if somebody leaves an `async for` early; inside of a collection it is anybody's.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from types import AsyncGeneratorType
from typing import Any

from otel_concurrency.hooks.loops.loop_classes import LoopMethodPatches
from otel_concurrency.probes.collections_now import CollectionsNow

CLOSING = "async_generator_athrow"
"""Name of the type of what `aclose()` returns."""


class AsyncgenHook:
    """Remembers which generators a collection has found, as long as they are there.

    Args:
        collections: Knows whether one goes on.
    """

    def __init__(self, collections: CollectionsNow) -> None:
        self._collections = collections
        self._found: weakref.WeakSet[Any] = weakref.WeakSet()
        self._patches = LoopMethodPatches(
            "_asyncgen_finalizer_hook",
            self._observe,
            loss="failures of its asynchronous generators may be told in a trace of somebody else",
        )

    def __repr__(self) -> str:
        return f"<AsyncgenHook {self._patches}>"

    def install(self) -> None:
        """Patch all loop classes; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back, last first."""
        self._patches.remove()

    def was_collected(self, closing: object) -> bool:
        """Tell whether what `aclose()` returned is about a generator that a collection has found."""
        return any(
            isinstance(each, AsyncGeneratorType) and each in self._found for each in gc.get_referents(closing)
        )

    def _observe(self, original: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[], None]]:
        is_on = True

        def _asyncgen_finalizer_hook(self_: Any, agen: Any) -> Any:
            if is_on and self._collections.is_here():
                self._found.add(agen)
            return original(self_, agen)

        def silence() -> None:
            nonlocal is_on
            is_on = False

        return functools.wraps(original)(_asyncgen_finalizer_hook), silence
