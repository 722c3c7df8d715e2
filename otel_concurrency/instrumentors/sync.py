"""What is told of waiting for locks and queues: hooks for each answer, joined to their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from otel_concurrency.hooks.trio.trio_waits import TrioWaitHook
from otel_concurrency.hooks.waits.anyio_waits import AnyIOWaitHook
from otel_concurrency.hooks.waits.creations import CreationHook
from otel_concurrency.hooks.waits.holds import HoldHook
from otel_concurrency.hooks.waits.wait_kinds import WaitKinds
from otel_concurrency.hooks.waits.waits import WaitHook
from otel_concurrency.probes.holds import HoldTimes
from otel_concurrency.probes.readers import READERS
from otel_concurrency.probes.tasks import TaskProbe
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.wait_metrics import HoldMetrics
from otel_concurrency.snapshot.sources import SOURCES

SyncHook = WaitHook | AnyIOWaitHook | TrioWaitHook | CreationHook | HoldHook

_NAMED = (asyncio.Lock, asyncio.Semaphore, asyncio.Condition, asyncio.Event, asyncio.Queue)


class SyncWaits:
    """The hooks that whoever counts tasks has for waits.

    Args:
        probe: Counts the waits.
        told: One of `config.SYNC_WAITS`.

    Attributes:
        hooks: To be installed in this order, and removed in the opposite one.
    """

    def __init__(self, probe: TaskProbe, told: str) -> None:
        self.hooks: Sequence[SyncHook] = ()
        self._holds: HoldTimes | None = None
        kinds = WaitKinds()
        others = (AnyIOWaitHook(probe, kinds), TrioWaitHook(probe, kinds))
        if told == "types":
            self.hooks = (WaitHook(probe, kinds=kinds), *others)
        elif told == "names":
            creations = CreationHook(*_NAMED)
            waits = WaitHook(probe, creations.site, kinds)
            self._holds = HoldTimes(probe.wait_names)
            self._metrics = HoldMetrics(self._holds)
            holds = HoldHook(self._holds, waits.number)
            self.hooks = (creations, waits, holds, *others)
            default_producer().register(self._metrics)
            self._withdraw = READERS.offer("holds", self._holds.read_holds)
            self._forget = SOURCES.add(named=creations.alive, sites=creations.site, holders=holds.holders)

    def begin_in_child(self) -> None:
        """Begin at zero, as a forked child must."""
        if self._holds is not None:
            self._holds.reset()
            self._metrics.begin()

    def leave(self) -> None:
        """Tell nothing any more."""
        if self._holds is not None:
            default_producer().unregister(self._metrics)
            self._withdraw()
            self._forget()
