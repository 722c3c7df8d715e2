"""A metric exporter that sends nothing anywhere, and says at the end how many tasks it was told of.

Registered as the exporter `conformance_sink` by the metadata that `sides.py` writes beside it. Periodic
collection runs as it would with a real exporter, so reading the probes while tests run is part of what is
tested.
"""

from __future__ import annotations

import json
import os
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

REPORT_VARIABLE = "CONFORMANCE_SINK_REPORT"


class SinkExporter(MetricExporter):
    """Keeps the last value of every task counter; writes them to `$CONFORMANCE_SINK_REPORT` at shutdown."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        super().__init__()
        self._created: dict[str, float] = {}

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Take note of `asyncio.task.created`."""
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "asyncio.task.created":
                        for point in metric.data.data_points:
                            name = str((point.attributes or {}).get("code.function.name"))
                            self._created[name] = getattr(point, "value", 0)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have nothing to flush."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Report, where a report was asked for."""
        if path := os.environ.get(REPORT_VARIABLE):
            with open(path, "w", encoding="utf-8") as report:
                json.dump(self._created, report)
