"""What we know of objects that are not ours, while they live: by identity, for they may compare equal."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class _Known(weakref.ref[Any], Generic[V]):
    __slots__ = ("key", "value")

    key: int
    value: V


class WeakIds(Generic[V]):
    """A value for each object; it goes with the object. Any thread may call.

    Attributes:
        by_id: For who is in a hurry: returns what has the `value` kept for the object of an `id`, or None.
        clear: Forgets all.
    """

    def __init__(self) -> None:
        known: dict[int, _Known[V]] = {}

        def forget(reference: Any) -> None:
            key = reference.key
            if known.get(key) is reference:
                del known[key]

        self._known = known
        self._forget = forget
        self.by_id = known.get
        self.clear = known.clear

    def __len__(self) -> int:
        return len(self._known)

    def put(self, it: object, value: V) -> None:
        """Keep a value, in place of any before."""
        reference = self._reference(it, value)
        self._known[reference.key] = reference

    def setdefault(self, it: object, value: V) -> V:
        """Keep a value if there is none yet, and return what is kept: the same to all threads."""
        reference = self._reference(it, value)
        return self._known.setdefault(reference.key, reference).value

    def _reference(self, it: object, value: V) -> _Known[V]:
        reference: _Known[V] = _Known(it, self._forget)
        reference.key, reference.value = id(it), value
        return reference

    def get(self, it: object) -> V | None:
        """Return the value, or None."""
        known = self._known.get(id(it))
        return known.value if known is not None else None

    def items(self) -> Iterator[tuple[Any, V]]:
        """Go through the objects that live now."""
        for known in list(self._known.values()):
            it = known()
            if it is not None:
                yield it, known.value
