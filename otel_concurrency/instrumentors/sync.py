"""What is told of waiting for asyncio's locks and queues: hooks for each answer, joined to their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from otel_concurrency.hooks.creations import CreationHook
from otel_concurrency.hooks.holds import HoldHook
from otel_concurrency.hooks.waits import WaitHook
from otel_concurrency.probes.holds import HoldTimes
from otel_concurrency.probes.tasks import TaskProbe
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.wait_metrics import HoldMetrics

SyncHook = WaitHook | CreationHook | HoldHook

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
        if told == "types":
            self.hooks = (WaitHook(probe),)
        elif told == "names":
            creations = CreationHook(*_NAMED)
            waits = WaitHook(probe, creations.site)
            self._holds = HoldTimes(probe.wait_names)
            self._metrics = HoldMetrics(self._holds)
            self.hooks = (creations, waits, HoldHook(self._holds, waits.number))
            default_producer().register(self._metrics)

    def begin_in_child(self) -> None:
        """Begin at zero, as a forked child must."""
        if self._holds is not None:
            self._holds.reset()
            self._metrics.begin()

    def leave(self) -> None:
        """Tell nothing any more."""
        if self._holds is not None:
            default_producer().unregister(self._metrics)
