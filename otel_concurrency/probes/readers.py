"""How the numbers of this process can be read: whoever keeps some says so, whoever judges them asks.

What is asked for is a name of `WHAT`; several may offer the same, one for each library say. Reading drains
nothing that an exporter waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

What = Literal[
    "loops",  # -> list[LoopTimeRow]
    "tasks",  # -> list[TaskCount]
    "waits",  # -> list[WaitRow]
    "holds",  # -> list[HoldRow]
    "work",  # -> list[PoolCount]
    "levels",  # -> list[PoolLevel]
    "connections",  # -> list[ConnectionRow]
    "connection_levels",  # -> list[tuple[str, ConnectionLevel]]
    "holders",  # (now_ns) -> list[tuple[str, Holder]]
    "http_waits",  # -> list[ServerRow]
    "http_levels",  # -> list[HttpPoolLevel]
    "throttled",  # -> int | None, ns
    "failures",  # -> dict[(kind, error type), int]
]

Read = Callable[..., Any]


class Readers:
    """Who offers what; replaced as a whole at each change, so that asking takes no lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._offers: dict[str, tuple[Read, ...]] = {}

    def __repr__(self) -> str:
        return f"<Readers of {', '.join(sorted(self._offers)) or 'nothing'}>"

    def offer(self, what: What, read: Read) -> Callable[[], None]:
        """Let others read this; returns what takes it back."""
        with self._lock:
            self._offers = {**self._offers, what: (*self._offers.get(what, ()), read)}

        def withdraw() -> None:
            with self._lock:
                rest = tuple(each for each in self._offers.get(what, ()) if each is not read)
                others = {name: reads for name, reads in self._offers.items() if name != what}
                self._offers = {**others, what: rest} if rest else others

        return withdraw

    def of(self, what: What) -> tuple[Read, ...]:
        """Return how that is read; nothing where nobody keeps it."""
        return self._offers.get(what, ())


READERS = Readers()
"""The process's."""
