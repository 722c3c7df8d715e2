"""Counts the runs of Celery's tasks; upstream's instrumentor makes their spans."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import CeleryOptions, Config
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.services.celery_tasks import CeleryHook
from otel_concurrency.instrumentors import work
from otel_concurrency.probes.celery_tasks import CeleryProbe
from otel_concurrency.signals.celery_metrics import CeleryMetrics
from otel_concurrency.signals.producer import default_producer


class CeleryTaskInstrumentor(BaseInstrumentor):
    """Tells how Celery's tasks ended, how long they took and waited, and how full a worker is.

    Options are the fields of `CeleryOptions`; what is not given comes from the environment.
    """

    configuration = CeleryOptions

    _undo: tuple[Callable[[], object], ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: without Celery, or with another one, nothing happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {field.name: kwargs.get(field.name) for field in fields(CeleryOptions)}
        config = Config.from_options(options, os.environ)
        probe = CeleryProbe(max_error_types=config.max_error_types)
        metrics = CeleryMetrics(probe)
        hook = CeleryHook(probe, metrics.repeated)

        def begin_in_child() -> None:
            probe.reset()
            metrics.begin()
            hook.forked()

        joined = work.join({})
        joined.watch(hook.levels)
        hook.install()
        default_producer().register(metrics)
        self._undo = (
            hook.remove,
            fork.in_child(begin_in_child),
            joined.leave,
            lambda: default_producer().unregister(metrics),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        for undo in self._undo:
            undo()
        self._undo = ()
