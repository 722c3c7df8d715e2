"""Whether a garbage collection goes on in this thread: then what runs has nothing to do with its caller."""

from __future__ import annotations

import threading
from collections.abc import Mapping


class CollectionsNow:
    """Knows the thread that collects; an entry of `gc.callbacks`, called before and after each collection."""

    _thread: int | None = None

    def __repr__(self) -> str:
        return f"<CollectionsNow [{'nowhere' if self._thread is None else self._thread}]>"

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Note the beginning or the end of a collection, as `gc` calls it."""
        self._thread = threading.get_ident() if phase == "start" else None

    def is_here(self) -> bool:
        """Whether the caller runs inside of a collection."""
        return self._thread == threading.get_ident()
