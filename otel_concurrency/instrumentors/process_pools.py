"""Carries context into process pools and counts their work: the hooks, joined to their signals."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import Config, ProcessPoolOptions
from otel_concurrency.hooks.process_pools import ProcessPoolHook
from otel_concurrency.instrumentors import work
from otel_concurrency.signals.carriers import capture
from otel_concurrency.signals.process_items import ProcessItems


class ProcessPoolInstrumentor(BaseInstrumentor):
    """Follows every work item of `ProcessPoolExecutor` into its worker process.

    Options are the fields of `ProcessPoolOptions`; what is not given comes from the environment.
    """

    configuration = ProcessPoolOptions

    _hook: ProcessPoolHook | None = None
    _work: work.WorkJoin | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: process pools are in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {field.name: kwargs.get(field.name) for field in fields(ProcessPoolOptions)}
        config = Config.from_options(options, os.environ)
        self._work = work.join(options)
        self._hook = ProcessPoolHook(
            self._work.probe,
            capture=capture,
            observer=ProcessItems(spans=config.process_spans),
            origin=getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None),
        )
        self._work.watch(self._hook.levels)
        self._hook.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._hook is not None:
            self._hook.remove()
        if self._work is not None:
            self._work.leave()
        self._hook = self._work = None
