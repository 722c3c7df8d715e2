"""What the processes of one worker know of each other's runs, in memory that they share.

Celery's main process receives a message, and one of the children that it forks runs it; the next delivery of
the same message may go to another child. Both tables here are made before the fork, in anonymous shared
memory, and hold nothing but numbers: no message is changed, and no child waits for another. They forget: a
bucket that is full gives up an entry, so what is not found is unknown, not untrue.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable

RECEIVED_SLOTS = 16_384
"""Messages that wait in a worker; tasks of a later time (ETA) are among them, so there may be many."""

ENDED_SLOTS = 65_536
"""Runs that have ended and are remembered."""

_WAYS = 8
_KEY_MASK = (1 << 64) - 1


def run_key(*parts: object) -> int:
    """Return a number that stands for some values, here and in all processes that this one forks."""
    return hash(parts) & _KEY_MASK or 1


class SharedRuns:
    """When each message was received, and which runs have ended.

    One process writes what was received, all of them what has ended. An entry is a single word, or has one
    that is written last: who reads while another writes finds nothing.

    Args:
        monotonic_ns: A clock that all processes of the machine share.
    """

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = monotonic_ns
        self._received = _words(2 * RECEIVED_SLOTS)  # the keys of a bucket, then their times
        self._ended = _words(ENDED_SLOTS)
        self._turn = 0

    def __repr__(self) -> str:
        return f"<SharedRuns [{sum(map(bool, self._ended))} ended]>"

    def receive(self, key: int) -> None:
        """Remember that a message came in now."""
        at = key % (RECEIVED_SLOTS // _WAYS) * 2 * _WAYS
        bucket = self._received[at : at + 2 * _WAYS].tolist()
        keys, times = bucket[:_WAYS], bucket[_WAYS:]
        way = keys.index(key) if key in keys else times.index(min(times))
        self._received[at + way] = 0
        self._received[at + _WAYS + way] = self._now_ns()
        self._received[at + way] = key

    def received_ns(self, key: int) -> int:
        """Return when a message came in; 0: unknown."""
        at = key % (RECEIVED_SLOTS // _WAYS) * 2 * _WAYS
        received = self._received
        keys = received[at : at + _WAYS].tolist()
        if key not in keys:
            return 0
        way = keys.index(key)
        at_ns = received[at + _WAYS + way]
        return at_ns if received[at + way] == key else 0

    def has_ended(self, key: int) -> bool:
        """Tell whether a run with this key has ended before."""
        at = key % (ENDED_SLOTS // _WAYS) * _WAYS
        return key in self._ended[at : at + _WAYS].tolist()

    def end(self, key: int) -> bool:
        """Remember that a run has ended; tell whether it is the first of its key."""
        at = key % (ENDED_SLOTS // _WAYS) * _WAYS
        bucket = self._ended[at : at + _WAYS].tolist()
        if key in bucket:
            return False
        if 0 in bucket:
            way = bucket.index(0)
        else:
            self._turn = way = (self._turn + 1) % _WAYS
        self._ended[at + way] = key
        return True


def _words(count: int) -> memoryview[int]:
    return memoryview(mmap.mmap(-1, 8 * count)).cast("Q")
