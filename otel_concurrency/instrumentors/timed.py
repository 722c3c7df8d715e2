"""Tells how long functions took that the program has timed with `otel_concurrency.timed`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks import fork
from otel_concurrency.probes.function_times import default as times
from otel_concurrency.signals import current_context
from otel_concurrency.signals.function_metrics import FunctionMetrics
from otel_concurrency.signals.producer import default_producer


class TimedFunctionInstrumentor(BaseInstrumentor):
    """Lets decorated functions count, and gives the numbers to every metric reader."""

    _metrics: FunctionMetrics | None = None
    _forget_fork: Callable[[], None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: the program itself decorates."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        metrics = self._metrics = FunctionMetrics(times)
        times.start(current_context.get_current)
        default_producer().register(metrics)

        def begin_in_child() -> None:
            times.reset()
            metrics.begin()

        self._forget_fork = fork.in_child(begin_in_child)

    def _uninstrument(self, **kwargs: Any) -> None:
        times.stop()
        if self._metrics is not None:
            default_producer().unregister(self._metrics)
        if self._forget_fork is not None:
            self._forget_fork()
        self._metrics = self._forget_fork = None
