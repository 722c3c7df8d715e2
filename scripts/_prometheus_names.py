"""What Prometheus makes of the names that OpenTelemetry knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from otel_concurrency.endpoints.prometheus_names import label_name, metric_name

if TYPE_CHECKING:
    from otel_concurrency.signals.names import Instrument


def prometheus_name(instrument: Instrument) -> str:
    """Return the name that Prometheus makes of an instrument's."""
    kind = instrument.kind
    return metric_name(
        instrument.name, instrument.unit, is_counter=kind == "counter", is_gauge=kind == "gauge"
    )


def prometheus_label(key: str) -> str:
    """Return the label that Prometheus makes of an attribute's key."""
    return label_name(key)
