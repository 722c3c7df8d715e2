"""Snapshots one after the other: of the next seconds, or always of the last ones.

Nothing is noted in between, so a program that nobody records pays nothing; what lasts for less than the time
between two looks may not be seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from otel_concurrency.snapshot import Snapshot, take

EVERY_S = 0.05
"""How often one is taken, at most."""

MAX_TASKS = 300
"""Tasks told in each."""

MAX_SECONDS = 60.0

_SHARE = 0.1  # of the time, for taking snapshots


def take_one() -> Snapshot:
    """Take a snapshot for a recording."""
    return take(max_tasks=MAX_TASKS)


def record(
    seconds: float,
    *,
    every_s: float = EVERY_S,
    look: Callable[[], Snapshot] = take_one,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Snapshot]:
    """Yield snapshots for so many seconds, one at least; the last comes when they are over.

    They are taken less often where each takes so long that it would cost a tenth of a CPU.

    Args:
        seconds: For how long, up to `MAX_SECONDS`.
        every_s: How often, at most.
        look: Takes one.
        clock: Monotonic time, s.
        sleep: Waits.
    """
    ends_s = clock() + min(seconds, MAX_SECONDS)
    while True:
        began_s = clock()
        yield look()
        now_s = clock()
        if now_s >= ends_s:
            return
        pause_s = max(every_s, (now_s - began_s) / _SHARE) - (now_s - began_s)
        sleep(max(0.0, min(pause_s, ends_s - now_s)))


class Ring:
    """The snapshots of the last seconds.

    Args:
        seconds: How long they are kept.
    """

    def __init__(self, seconds: float) -> None:
        self._kept_ns = int(seconds * 1e9)
        self._snapshots: deque[Snapshot] = deque()

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self._snapshots)

    def add(self, snapshot: Snapshot) -> None:
        """Add the newest; those from before the time go."""
        self._snapshots.append(snapshot)
        while self._snapshots[0].taken_unix_ns < snapshot.taken_unix_ns - self._kept_ns:
            self._snapshots.popleft()
