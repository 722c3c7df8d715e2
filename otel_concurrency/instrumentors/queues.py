"""Tells how full asyncio's queues are, and who put what was taken out: hooks, joined to their signals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import Config, QueueOptions
from otel_concurrency.hooks.waits.creations import CreationHook
from otel_concurrency.hooks.waits.queue_items import QueueItemHook
from otel_concurrency.probes.queues import QueueLevel, queue_levels
from otel_concurrency.probes.waits import WaitNames
from otel_concurrency.signals import providers
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.queue_links import QueueLinks
from otel_concurrency.signals.wait_metrics import QueueMetrics
from otel_concurrency.snapshot.sources import SOURCES


class QueueInstrumentor(BaseInstrumentor):
    """Looks at the queues that are made from now on.

    Options are the fields of `QueueOptions`; what is not given comes from the environment.
    """

    configuration = QueueOptions

    _hooks: Sequence[CreationHook | QueueItemHook] = ()
    _undo: Sequence[Callable[[], object]] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: queues are in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        config = Config.from_options(
            {name: kwargs.get(name) for name in ("sync_waits", "queue_links")}, os.environ
        )
        hooks: list[CreationHook | QueueItemHook] = []
        undo: list[Callable[[], object]] = []
        if config.sync_waits != "none":
            creations, known = CreationHook(asyncio.Queue), WaitNames()

            def levels() -> list[QueueLevel]:
                return queue_levels(creations.alive(), known)

            metrics = QueueMetrics(levels)
            default_producer().register(metrics)
            hooks.append(creations)
            undo.append(lambda: default_producer().unregister(metrics))
            undo.append(SOURCES.add(named=creations.alive, sites=creations.site))
        if config.queue_links:
            links = QueueLinks()
            hooks.append(QueueItemHook(links))
            undo.append(providers.watch_spans(links, kwargs.get("tracer_provider")))
        for hook in hooks:
            hook.install()
        self._hooks, self._undo = hooks, undo

    def _uninstrument(self, **kwargs: Any) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        for undo in self._undo:
            undo()
        self._hooks, self._undo = (), ()
