"""Tells what the interpreter and the operating system keep from the program."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.runtime.gc import GcHook
from otel_concurrency.probes.cpu_supply import CpuSupply
from otel_concurrency.probes.gc_pauses import GcPauses
from otel_concurrency.probes.gil import GilProbe, is_gil_enabled
from otel_concurrency.probes.readers import READERS
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.runtime_metrics import RuntimeMetrics

gc_pauses = GcPauses()
"""The process's; whoever explains a stall asks it."""

gil = GilProbe()
"""The process's; filled by the thread that watches event loops."""


class RuntimeInstrumentor(BaseInstrumentor):
    """Gives every metric reader the pauses of garbage collection, the waits for the GIL, and throttling."""

    _hook: GcHook | None = None
    _metrics: RuntimeMetrics | None = None
    _undo: tuple[Callable[[], None], ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: `gc` is in the standard library."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        supply = CpuSupply()
        metrics = self._metrics = RuntimeMetrics(gc_pauses, gil, supply.throttled_ns, has_gil=is_gil_enabled)
        self._hook = GcHook(gc_pauses)
        self._hook.install()
        default_producer().register(metrics)

        def begin_in_child() -> None:
            gc_pauses.reset()
            gil.reset()
            metrics.begin()

        self._undo = (fork.in_child(begin_in_child), READERS.offer("throttled", supply.throttled_ns))

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._hook is not None:
            self._hook.remove()
        if self._metrics is not None:
            default_producer().unregister(self._metrics)
        for undo in self._undo:
            undo()
        self._hook = self._metrics = None
        self._undo = ()
