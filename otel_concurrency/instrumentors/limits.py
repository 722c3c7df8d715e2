"""Tells what a program's adaptive limiters recommend."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks.adaptive_limiter import limiters
from otel_concurrency.signals.limit_metrics import LimitMetrics
from otel_concurrency.signals.producer import default_producer


class LimitInstrumentor(BaseInstrumentor):
    """Gives every metric reader the limits of all `AdaptiveLimiter`s."""

    _metrics: LimitMetrics | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: the program itself makes limiters."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        self._metrics = LimitMetrics(lambda: list(limiters))
        default_producer().register(self._metrics)

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._metrics is not None:
            default_producer().unregister(self._metrics)
            self._metrics = None
