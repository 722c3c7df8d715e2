"""Tells of this process and its threads, at each collection; nothing is patched."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.runtime.system_metrics import emitted_by_upstream
from otel_concurrency.probes.process import ProcReader
from otel_concurrency.probes.thread_states import ThreadSampler
from otel_concurrency.signals.process_metrics import ForkCount, ProcessMetrics, Reader
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.signals.readings import Source
from otel_concurrency.signals.thread_metrics import ThreadMetrics


class ProcessInstrumentor(BaseInstrumentor):
    """Gives every metric reader the process, its threads and its forks."""

    _sources: tuple[Source, ...] = ()
    _stop_counting: Callable[[], None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: it reads the operating system."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        reader = _reader()
        forks = ForkCount()
        self._sources = (
            ProcessMetrics(reader, left_out=emitted_by_upstream),
            ThreadMetrics(ThreadSampler(), started_unix_ns=reader.started_unix_ns),
            forks,
        )
        self._stop_counting = fork.in_parent(forks.add)
        for source in self._sources:
            default_producer().register(source)

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._stop_counting is not None:
            self._stop_counting()
        for source in self._sources:
            default_producer().unregister(source)
        self._sources, self._stop_counting = (), None


def _reader() -> Reader:
    reader = ProcReader()
    if reader.is_readable:
        return reader
    from otel_concurrency.signals.psutil_process import PsutilReader

    return PsutilReader()
