"""What Prometheus makes of the names that OpenTelemetry knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_concurrency.signals.names import Instrument


def prometheus_name(instrument: Instrument) -> str:
    """Return the name that Prometheus makes of an instrument's.

    Source: "OTLP Metric points to Prometheus" in the OpenTelemetry specification, Prometheus and OpenMetrics
    Compatibility; the test of the real Prometheus holds it to that.
    """
    name = instrument.name.replace(".", "_")
    suffixes = [{"s": "seconds", "By": "bytes"}.get(instrument.unit, "")]
    if instrument.unit == "1" and instrument.kind == "gauge":
        suffixes = ["ratio"]
    if instrument.kind == "counter":
        suffixes.append("total")
    return "_".join([name, *(suffix for suffix in suffixes if suffix)])


def prometheus_label(key: str) -> str:
    """Return the label that Prometheus makes of an attribute's key."""
    return key.replace(".", "_")
