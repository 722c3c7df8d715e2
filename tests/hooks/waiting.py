"""What the tests of waits have in common."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.hooks.trio.trio_tasks import TrioTaskHook
from otel_concurrency.hooks.trio.trio_waits import TrioWaitHook
from otel_concurrency.hooks.waits.anyio_waits import AnyIOWaitHook
from otel_concurrency.hooks.waits.wait_kinds import WaitKinds
from otel_concurrency.hooks.waits.waits import WaitHook
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.tasks import TaskProbe
from otel_concurrency.probes.waits import WaitRow

HELD_NS = 10_000_000


class Queue:
    """Tasks that hold a lock for 10 ms each, one after the other; the first when all others wait.

    Args:
        lock: What they hold.
        sleep: Of the library that runs them.
    """

    def __init__(self, lock: Any, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._lock = lock
        self._sleep = sleep
        self._is_first = True
        self.waited_ns: list[int] = []

    async def hold(self, others: int = 0) -> None:
        asked_ns = time.monotonic_ns()
        async with self._lock:
            self.waited_ns.append(time.monotonic_ns() - asked_ns)
            if self._is_first:
                self._is_first = False
                while self._lock.statistics().tasks_waiting < others:
                    await self._sleep(0)
            await self._sleep(HELD_NS / 1e9)

    def check(self, row: WaitRow) -> None:
        """See that what was counted is what was waited: n waits, of 10 ms to n times 10 ms.

        uvloop's timers may be 1 ms early.
        """
        _, *waited_ns = sorted(self.waited_ns)
        count = len(waited_ns)
        assert (row.contentions, row.waiting, row.durations.count) == (count, 0, count)
        shortest_ns = 0.9 * HELD_NS
        assert shortest_ns * count * (count + 1) / 2 <= row.wait_ns <= sum(waited_ns)
        assert shortest_ns <= (row.durations.min_ns or 0) <= waited_ns[0]
        assert shortest_ns * count <= (row.durations.max_ns or 0) <= waited_ns[-1]
        assert row.durations.sum_ns == row.wait_ns


class Waiting:
    """All hooks on waits, and what their probe has counted."""

    def __init__(self, *, native: bool) -> None:
        self.probe: TaskProbe = make_task_probe(native=native)
        kinds = WaitKinds()
        self.hooks: list[Any] = [
            TaskHook(self.probe),
            TrioTaskHook(self.probe),
            WaitHook(self.probe, kinds=kinds),
            AnyIOWaitHook(self.probe, kinds),
            TrioWaitHook(self.probe, kinds),
        ]

    def install(self) -> None:
        for hook in self.hooks:
            hook.install()

    def remove(self) -> None:
        for hook in reversed(self.hooks):
            hook.remove()

    def rows(self) -> dict[str, WaitRow]:
        """The kinds of waits that there were."""
        return {row.kind: row for row in self.probe.read_waits() if row.contentions}

    def counts(self) -> dict[str, int]:
        """How many waits there were of each kind; checks that they are over, and were timed."""
        rows = self.rows()
        assert {(row.waiting, row.contentions - row.durations.count) for row in rows.values()} <= {(0, 0)}
        return {kind: row.contentions for kind, row in rows.items()}


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def waiting(request: pytest.FixtureRequest) -> Iterator[Waiting]:
    waiting = Waiting(native=request.param)
    if request.param and waiting.probe.way == "pure":
        pytest.skip("no native probes here")
    waiting.install()
    yield waiting
    waiting.remove()
