"""What is there when we are told to freeze is out of the collector's way, until we let go of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from otel_concurrency.hooks.runtime.frozen_heap import FrozenHeap

pytestmark = pytest.mark.skipif(not hasattr(gc, "freeze"), reason="this interpreter freezes nothing")


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    assert gc.get_freeze_count() == 0
    yield
    gc.unfreeze()


def is_scanned(thing: object) -> bool:
    return any(thing is other for other in gc.get_objects())


def test_only_what_was_there_before_is_left_out_and_only_for_as_long() -> None:
    heap = FrozenHeap()
    before = Node()
    heap.install()
    after = Node()
    assert (is_scanned(before), is_scanned(after)) == (False, True)
    heap.install()
    assert is_scanned(after)
    heap.remove()
    assert is_scanned(before)
    assert gc.get_freeze_count() == 0


def test_what_comes_later_is_collected_and_what_was_frozen_dies_with_its_last_reference() -> None:
    heap = FrozenHeap()
    plain, cyclic = Node(), Node()
    plain.own = None  # type: ignore[assignment]
    gone = weakref.ref(plain)
    heap.install()
    later = weakref.ref(Node())
    gc.collect()
    assert later() is None
    del plain
    assert gone() is None
    kept = weakref.ref(cyclic)
    del cyclic
    gc.collect()
    assert kept() is not None
    heap.remove()
    gc.collect()
    assert kept() is None


def test_what_the_program_has_frozen_stays_frozen() -> None:
    heap = FrozenHeap()
    heap.install()
    theirs = [Node() for _ in range(10_000)]
    gc.freeze()
    heap.remove()
    assert not is_scanned(theirs[0])
    gc.unfreeze()
    gc.freeze()
    heap.install()
    heap.remove()
    assert not is_scanned(theirs[0])
