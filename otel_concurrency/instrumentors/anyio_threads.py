"""Counts the work of AnyIO's worker threads: the hook, joined to the metrics of work."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks.anyio_threads import AnyIOThreadHook
from otel_concurrency.instrumentors import work


class AnyIOThreadInstrumentor(BaseInstrumentor):
    """Counts what `anyio.to_thread.run_sync` runs, FastAPI's plain functions among it."""

    _hook: AnyIOThreadHook | None = None
    _work: work.WorkJoin | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: without AnyIO, or with another one, nothing happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        self._work = work.join({})
        self._hook = AnyIOThreadHook(self._work.probe)
        self._work.watch(self._hook.levels)
        self._hook.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._hook is not None:
            self._hook.remove()
        if self._work is not None:
            self._work.leave()
        self._hook = self._work = None
