"""Carries context into process pools and counts their work: the hooks, joined to their signals."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import Config, ProcessPoolOptions
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.processes.multiprocessing_pools import MultiprocessingPoolHook
from otel_concurrency.hooks.processes.process_pools import ProcessPoolHook
from otel_concurrency.instrumentors import work
from otel_concurrency.signals.carriers import capture
from otel_concurrency.signals.late_span import count_fork
from otel_concurrency.signals.process_items import ProcessItems


class ProcessPoolInstrumentor(BaseInstrumentor):
    """Follows every work item of `ProcessPoolExecutor` and `multiprocessing.Pool` into its worker process.

    Options are the fields of `ProcessPoolOptions`; what is not given comes from the environment.
    """

    configuration = ProcessPoolOptions

    _hooks: tuple[ProcessPoolHook | MultiprocessingPoolHook, ...] = ()
    _work: work.WorkJoin | None = None
    _forget_fork: Callable[[], None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: process pools are in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {field.name: kwargs.get(field.name) for field in fields(ProcessPoolOptions)}
        config = Config.from_options(options, os.environ)
        self._work = work.join(options)
        threshold_s = 0.0 if config.process_spans == "all" else config.task_span_threshold
        items = ProcessItems(spans=config.process_spans != "none", threshold_ns=int(threshold_s * 1e9))
        origin = getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None)
        self._hooks = (
            ProcessPoolHook(self._work.probe, capture=capture, observer=items, context_var=origin),
            MultiprocessingPoolHook(self._work.probe, capture=capture, observer=items, origin=origin),
        )
        self._forget_fork = fork.in_child(count_fork)
        for hook in self._hooks:
            self._work.watch(hook.levels)
            hook.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        if self._forget_fork is not None:
            self._forget_fork()
        if self._work is not None:
            self._work.leave()
        self._hooks, self._work, self._forget_fork = (), None, None
