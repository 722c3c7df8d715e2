"""How often a thing may be told: a few times at once, then now and then, with a count of those left out."""

from __future__ import annotations

from collections.abc import Hashable

INTERVAL_NS = 10_000_000_000
BURST = 10
"""How often like things may be told in an interval."""

TOTAL = 100
"""How often things of all kinds may be told in an interval."""

MAX_KEYS = 200
"""Kinds that are told apart; when there are more, all begin anew."""


class RateLimit:
    """Decides what is told. Takes no lock: where two threads race, one thing too many may be told.

    Args:
        burst: For each key.
        total: For all keys together.
        interval_ns: In which time.
    """

    def __init__(self, *, burst: int = BURST, total: int = TOTAL, interval_ns: int = INTERVAL_NS) -> None:
        self._burst = burst
        self._total = total
        self._interval_ns = interval_ns
        self.reset()

    def reset(self) -> None:
        """Know nothing."""
        self._keys: dict[Hashable, tuple[int, int, int]] = {}  # when its interval began, told, left out
        self._began_ns, self._told = 0, 0

    def admit(self, key: Hashable, now_ns: int) -> int | None:
        """Return how many like things were left out since the last one that was told; None: leave it out.

        Args:
            key: What is alike.
            now_ns: Time from any beginning but 0.
        """
        if now_ns - self._began_ns >= self._interval_ns:
            self._began_ns, self._told = now_ns, 0
        began_ns, told, left_out = self._keys.get(key, (now_ns, 0, 0))
        if now_ns - began_ns >= self._interval_ns:
            began_ns, told = now_ns, 0
        if len(self._keys) >= MAX_KEYS and key not in self._keys:
            self._keys.clear()
        if told >= self._burst or self._told >= self._total:
            self._keys[key] = (began_ns, told, left_out + 1)
            return None
        self._told += 1
        self._keys[key] = (began_ns, told + 1, 0)
        return left_out
