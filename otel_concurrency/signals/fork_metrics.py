"""What the SDK has counted, in a forked child: nothing yet.

A child inherits the totals of its parent and would report them once more under its own name. Every series is
dropped, and begins anew with the first measurement, its start time then. Instruments with callbacks go on to
report what their callbacks return, to delta readers too: whole at first, then the difference.

Leans on `MeterProvider`, `SynchronousMeasurementConsumer`, `MetricReaderStorage` and `_ViewInstrumentMatch`
(`opentelemetry/sdk/metrics/_internal/`, SDK 1.45).
"""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import (
    LogarithmMapping,
)

from otel_concurrency.signals.fresh_locks import renew_locks


def begin_anew(provider: MeterProvider) -> None:
    """Drop every series of a provider and renew every lock on the way to it; readers stay."""
    MeterProvider._all_metric_readers_lock = threading.Lock()
    ExponentMapping._mappings_lock = threading.Lock()
    LogarithmMapping._mappings_lock = threading.Lock()
    renew_locks(provider)
    for meter in list(provider._meters.values()):
        renew_locks(meter)
    consumer: Any = provider._measurement_consumer
    renew_locks(consumer)
    for reader, storage in consumer._reader_storages.items():
        renew_locks(reader)
        renew_locks(storage)
        for matches in storage._instrument_view_instrument_matches.values():
            for match in matches:
                match._lock = threading.Lock()
                match._attributes_aggregation = {}
