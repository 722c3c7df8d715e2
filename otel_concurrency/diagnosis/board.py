"""The findings that are open now: written by the thread that judges, read by whoever asks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from otel_concurrency.diagnosis import records
from otel_concurrency.diagnosis.finding import Finding
from otel_concurrency.diagnosis.window import Window

MAX_WINDOWS = 30
"""Windows kept: five minutes of them, as a rule."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is to be said of this process now.

    Attributes:
        is_on: Whether anybody judges; False: an empty list says nothing.
        open: Findings that stand, the weightiest first.
        recheck: Findings that were seen, but not often enough yet.
        windows: How many windows were judged so far.
        window_s: How long one is.
        judged_unix_ns: When the last one ended; 0: none has yet.
    """

    is_on: bool = False
    open: tuple[Finding, ...] = ()
    recheck: tuple[Finding, ...] = ()
    windows: int = 0
    window_s: float = 0.0
    judged_unix_ns: int = 0

    def to_data(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return records.to_data(self)

    def to_json(self) -> str:
        """Return one line of JSON."""
        return records.to_json(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Diagnosis:
        """Return what `to_data` was called on."""
        return records.from_data(cls, data)

    @classmethod
    def from_json(cls, text: str) -> Diagnosis:
        """Return what `to_json` was called on."""
        return records.from_json(cls, text)


@dataclass(slots=True)
class Board:
    """Holds them for this process.

    Attributes:
        now: Replaced after each window, never changed.
        windows: The last ones, the oldest first.
    """

    now: Diagnosis = field(default_factory=Diagnosis)
    windows: deque[Window] = field(default_factory=lambda: deque(maxlen=MAX_WINDOWS))

    def reset(self) -> None:
        """Know nothing: nobody judges, or this is a forked child."""
        self.now = Diagnosis()
        self.windows.clear()


BOARD = Board()
"""The process's: `BOARD.now` is what an endpoint or a command shows."""
