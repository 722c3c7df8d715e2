"""How a snapshot lets others run: what it looks at comes in chunks, and after each the GIL is on offer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

CHUNK = 200
"""Things looked at between two offers, at most."""

HELD_NS = 1_500_000
"""From when on it is offered sooner."""

_LOOK_AT_CLOCK = 16

_T = TypeVar("_T")


def paced(things: Iterable[_T]) -> Iterator[_T]:
    """Go through things, and offer the GIL from time to time."""
    since_ns = time.monotonic_ns()
    for count, thing in enumerate(things, 1):
        yield thing
        if not count % CHUNK or (not count % _LOOK_AT_CLOCK and time.monotonic_ns() - since_ns > HELD_NS):
            time.sleep(0)
            since_ns = time.monotonic_ns()
