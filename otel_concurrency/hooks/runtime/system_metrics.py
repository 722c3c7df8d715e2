"""Upstream's system-metrics instrumentor, in a forked child, and what it emits.

It takes `psutil.Process(os.getpid())` once, when it is made (`opentelemetry.instrumentation.system_metrics`
0.66b1), so that a forked child goes on telling of its parent. Nothing is patched, and nothing imported: a
child looks whether upstream's module is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from otel_concurrency.hooks import fork

_MODULE = "opentelemetry.instrumentation.system_metrics"


class SystemMetricsHook:
    """Sees to it that a forked child's system metrics are the child's."""

    def __init__(self) -> None:
        self._undo: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<SystemMetricsHook [{'installed' if self._undo else 'removed'}]>"

    def install(self) -> None:
        """Wait for forks; a second call changes nothing."""
        if self._undo is None:
            self._undo = fork.in_child(begin_anew)

    def remove(self) -> None:
        """Leave forks alone."""
        if self._undo is not None:
            self._undo()
            self._undo = None


def begin_anew() -> None:
    """Point upstream's instrumentor, where there is one, at the process that this is."""
    instrumentor = _instrumentor()
    psutil = sys.modules.get("psutil")
    if psutil is not None and isinstance(getattr(instrumentor, "_proc", None), psutil.Process):
        instrumentor._proc = psutil.Process()
        instrumentor._proc.cpu_percent()  # begins to measure: its first answer is always 0


def emitted_by_upstream() -> Collection[str]:
    """Return the names of the metrics that upstream's instrumentor emits at this time."""
    instrumentor = _instrumentor()
    if not getattr(instrumentor, "is_instrumented_by_opentelemetry", False):
        return ()
    metrics = getattr(instrumentor, "_config", None)
    return metrics if isinstance(metrics, Mapping) else ()


def _instrumentor() -> Any:
    module = sys.modules.get(_MODULE)
    # The class keeps its only object; asking it to make one would begin anew.
    return getattr(getattr(module, "SystemMetricsInstrumentor", None), "_instance", None)
