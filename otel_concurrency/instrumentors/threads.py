"""Carries contexts into threads and thread pools, and counts the pools' work."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.config import ThreadOptions
from otel_concurrency.hooks import fork
from otel_concurrency.hooks.attaching import Attaching
from otel_concurrency.hooks.threads.futures import FutureHook
from otel_concurrency.hooks.threads.thread_pools import ThreadPoolHook
from otel_concurrency.hooks.threads.threads import ThreadHook
from otel_concurrency.instrumentors import work
from otel_concurrency.signals.current_context import replaced


class ConcurrencyThreadingInstrumentor(BaseInstrumentor):
    """Stands in for upstream's `threading`: the whole context goes along, and pools are measured.

    Options are the fields of `ThreadOptions`; what is not given comes from the environment.
    """

    configuration = ThreadOptions

    _hooks: tuple[ThreadHook, FutureHook, ThreadPoolHook] | tuple[()] = ()
    _work: work.WorkJoin | None = None
    _forget_fork: Callable[[], None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: threads are in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        options = {field.name: kwargs.get(field.name) for field in fields(ThreadOptions)}
        self._work = work.join(options)
        attaching = Attaching(opentelemetry_context, replaced)
        pools = ThreadPoolHook(self._work.probe, attaching)
        self._work.watch(pools.levels)
        self._forget_fork = fork.in_child(pools.forget_pools)
        self._hooks = (ThreadHook(attaching), FutureHook(), pools)
        for hook in self._hooks:
            hook.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        if self._forget_fork is not None:
            self._forget_fork()
        if self._work is not None:
            self._work.leave()
        self._hooks, self._work, self._forget_fork = (), None, None
