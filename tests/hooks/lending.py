"""What the tests of connection pools share: a probe that is told, and who hears of its waits."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from otel_concurrency.probes.connections import ConnectionLevel, ConnectionProbe, ConnectionRow, Holder

HELD_S = 0.1
LONG_NS = 10_000_000


class Heard:
    """Who hears of waits; those that are too short to matter are left out."""

    def __init__(self) -> None:
        self.waits: list[tuple[str, int]] = []
        self.timeouts: list[tuple[str, int, list[str]]] = []

    def waited(self, pool: str, ns: int, /) -> None:
        if ns >= LONG_NS:
            self.waits.append((pool, ns))

    def timed_out(self, pool: str, ns: int, holders: Sequence[Holder], /) -> None:
        self.timeouts.append((pool, ns, [holder.who for holder in holders]))


class SixOfTwo:
    """Six hold one of two connections for 0.1 s each: two have theirs at once, two wait 0.1 s, two 0.2 s.

    Each measures what it saw. On a busy machine that is more than it had to be, for the metrics, too.
    """

    COUNT = 6

    def __init__(self) -> None:
        self._waited: list[float] = []
        self._held: list[float] = []
        self._together = threading.Barrier(self.COUNT)

    @property
    def has_begun(self) -> bool:
        """Whether the first two have theirs."""
        return len(self._waited) == 2

    def in_threads(self, lent: Callable[[], Any]) -> None:
        """Let threads hold what a context manager gives."""

        def hold() -> None:
            self._together.wait()
            with self._asking() as has, lent():
                has()
                time.sleep(HELD_S)

        for thread in in_threads(hold, self.COUNT):
            thread.join()

    def in_tasks(self, lent: Callable[[], Any]) -> asyncio.Future[list[None]]:
        """Let tasks hold what an asynchronous context manager gives; await it."""

        async def hold() -> None:
            with self._asking() as has:
                async with lent():
                    has()
                    await asyncio.sleep(HELD_S)

        return asyncio.gather(*(hold() for _ in range(self.COUNT)))

    @contextmanager
    def _asking(self) -> Iterator[Callable[[], None]]:
        asked = had = time.monotonic()

        def has() -> None:
            nonlocal had
            had = time.monotonic()
            self._waited.append(had - asked)

        yield has
        self._held.append(time.monotonic() - had)

    def compare(self, seen: ConnectionRow, heard: Heard) -> None:
        """Compare what was counted with what was so, and with what had to be."""
        assert seen.timeouts == 0
        assert seen.wait_times.count == seen.use_times.count == self.COUNT
        assert seen.wait_times.sum_ns == pytest.approx(sum(self._waited) * 1e9, rel=0.05)
        assert seen.use_times.sum_ns == pytest.approx(sum(self._held) * 1e9, rel=0.05)
        assert min(seen.wait_times.sum_ns, seen.use_times.sum_ns) >= 0.6e9 * 0.95
        long = [seconds * 1e9 for seconds in sorted(self._waited)[2:]]
        assert sorted(ns for _, ns in heard.waits)[-4:] == pytest.approx(long, rel=0.05)


def row(probe: ConnectionProbe) -> ConnectionRow:
    """Return the row of the one pool there is."""
    (only,) = probe.read()
    return only


def levels(probe: ConnectionProbe) -> list[tuple[str, ConnectionLevel]]:
    """Return the name of each pool that somebody has, and how full it is; many are parts of cycles."""
    gc.collect()
    return probe.levels()


def level(probe: ConnectionProbe) -> ConnectionLevel:
    """Return how full the one live pool is."""
    found = probe.levels()
    ((_, only),) = found if len(found) == 1 else levels(probe)
    return only


def in_threads(function: Callable[[], Any], count: int) -> list[threading.Thread]:
    """Start threads that run a function, called `holder-0`, `holder-1`, …"""
    threads = [threading.Thread(target=function, name=f"holder-{number}") for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def until(condition: Callable[[], object], timeout: float = 10) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def until_async(condition: Callable[[], object]) -> None:
    """Return when something is so, and let others run until then."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
