"""What the processes of one worker know of each other's runs, in memory that they share.

Celery's main process receives a message, and one of the children that it forks runs it; the next delivery of
the same message may go to another child. Both tables here are made before the fork, in anonymous shared
memory, and hold nothing but numbers: no message is changed, and no child waits for another. They forget: a
bucket that is full gives up an entry, so what is not found is unknown, not untrue.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Hashable

RECEIVED_SLOTS = 16_384
"""Messages that wait in a worker; tasks of a later time (ETA) are among them, so there may be many."""

ENDED_SLOTS = 65_536
"""Runs that have ended and are remembered."""

_WAYS = 8
_WORD = 8
_ENTRY = 2 * _WORD  # a key and a time
_EMPTY = bytes(_WORD)
_KEY_MASK = (1 << 64) - 1


def run_key(parts: Hashable) -> int:
    """Return a number that stands for a value, here and in all processes that this one forks."""
    return hash(parts) & _KEY_MASK | 1  # its first byte is none of an empty word's


class SharedRuns:
    """When each message was received, and which runs have ended.

    One process writes what was received, all of them what has ended. An entry is a single word, or has one
    that is written last: who reads while another writes finds nothing.

    Args:
        monotonic_ns: A clock that all processes of the machine share.
    """

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = monotonic_ns
        self._received_buckets = RECEIVED_SLOTS // _WAYS
        self._ended_buckets = ENDED_SLOTS // _WAYS
        self._received = mmap.mmap(-1, RECEIVED_SLOTS * _ENTRY)
        self._ended = mmap.mmap(-1, ENDED_SLOTS * _WORD)
        self._next = bytearray(self._received_buckets)  # of each bucket, the oldest entry
        self._turn = 0

    def __repr__(self) -> str:
        return f"<SharedRuns of {os.getpid()}>"

    def receive(self, key: int) -> None:
        """Remember that a message came in now."""
        word, received = key.to_bytes(_WORD, "little"), self._received
        at = self._place_received(key, word)
        if at < 0:
            bucket = (key >> 1) % self._received_buckets
            way = self._next[bucket]
            self._next[bucket] = (way + 1) % _WAYS
            at = (bucket * _WAYS + way) * _ENTRY
        between, end = at + _WORD, at + _ENTRY
        received[at:between] = _EMPTY
        received[between:end] = self._now_ns().to_bytes(_WORD, "little")
        received[at:between] = word

    def received_ns(self, key: int) -> int:
        """Return when a message came in; 0: unknown."""
        word = key.to_bytes(_WORD, "little")
        at = self._place_received(key, word)
        if at < 0:
            return 0
        between, end = at + _WORD, at + _ENTRY
        at_ns = int.from_bytes(self._received[between:end], "little")
        return at_ns if self._received[at:between] == word else 0

    def has_ended(self, key: int) -> bool:
        """Tell whether a run with this key has ended before."""
        return self._place_ended(key, key.to_bytes(_WORD, "little")) >= 0

    def end(self, key: int) -> bool:
        """Remember that a run has ended; tell whether it is the first of its key."""
        word = key.to_bytes(_WORD, "little")
        if self._place_ended(key, word) >= 0:
            return False
        bucket = (key >> 1) % self._ended_buckets * _WAYS * _WORD
        at = self._ended.find(_EMPTY, bucket, bucket + _WAYS * _WORD)
        if at >= 0:  # it may begin in the last bytes of a key; what follows is empty then
            at += (bucket - at) % _WORD
        else:
            self._turn = (self._turn + 1) % _WAYS
            at = bucket + self._turn * _WORD
        self._ended[at : at + _WORD] = word
        return True

    def _place_received(self, key: int, word: bytes) -> int:
        bucket = (key >> 1) % self._received_buckets * _WAYS * _ENTRY
        at = self._received.find(word, bucket, bucket + _WAYS * _ENTRY)
        return at if (at - bucket) % _ENTRY == 0 else -1

    def _place_ended(self, key: int, word: bytes) -> int:
        bucket = (key >> 1) % self._ended_buckets * _WAYS * _WORD
        at = self._ended.find(word, bucket, bucket + _WAYS * _WORD)
        return at if (at - bucket) % _WORD == 0 else -1
