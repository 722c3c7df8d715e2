"""Exporters that send nothing anywhere, and say at the end how many tasks and work items they were told of.

Registered under the names below by the metadata that `sides.py` writes beside this file.

- `conformance_sink` is read periodically, by the SDK's own thread, as a real exporter would be: that the
  probes are read while tests run is part of what is tested.
- `conformance_reader` has no thread; it is read once, at shutdown.
"""

from __future__ import annotations

import json
import os
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricReader, MetricsData

REPORT_VARIABLE = "CONFORMANCE_SINK_REPORT"


def counters(metrics_data: MetricsData) -> dict[str, float]:
    """Return `asyncio.task.created` by coroutine function, `python.executor.task.completed` by pool."""
    created: dict[str, float] = {}
    for resource in metrics_data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == "asyncio.task.created":
                    for point in metric.data.data_points:
                        name = str((point.attributes or {}).get("code.function.name"))
                        created[name] = getattr(point, "value", 0)
                if metric.name == "python.executor.task.completed":
                    for point in metric.data.data_points:
                        name = f"pool {(point.attributes or {}).get('python.executor.name')}"
                        created[name] = created.get(name, 0) + getattr(point, "value", 0)
    return created


def report(created: dict[str, float]) -> None:
    """Write the counters down, where a report was asked for."""
    if path := os.environ.get(REPORT_VARIABLE):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(created, file)


class SinkExporter(MetricExporter):
    """Keeps the last counters; reports them at shutdown."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        super().__init__()
        self._created: dict[str, float] = {}

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Take note of the counters."""
        self._created.update(counters(metrics_data))
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have nothing to flush."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Report."""
        report(self._created)


class SinkReader(MetricReader):
    """Reads once, at shutdown, on the thread that shuts down."""

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        report(counters(metrics_data))

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Collect and report."""
        self.collect()
