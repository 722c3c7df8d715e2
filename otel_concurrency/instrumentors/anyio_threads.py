"""Counts the work of the worker threads of AnyIO and trio: the hooks, joined to the metrics of work."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks.threads.anyio_threads import AnyIOThreadHook
from otel_concurrency.hooks.trio.trio_threads import TrioThreadHook
from otel_concurrency.instrumentors import work


class AnyIOThreadInstrumentor(BaseInstrumentor):
    """Counts what `to_thread.run_sync` of AnyIO and trio runs, FastAPI's plain functions among it."""

    _hooks: Sequence[AnyIOThreadHook | TrioThreadHook] = ()
    _work: work.WorkJoin | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: without AnyIO and trio, or with others, nothing happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        self._work = work.join({})
        self._hooks = (AnyIOThreadHook(self._work.probe), TrioThreadHook(self._work.probe))
        for hook in self._hooks:
            self._work.watch(hook.levels)
            hook.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        if self._work is not None:
            self._work.leave()
        self._hooks, self._work = (), None
