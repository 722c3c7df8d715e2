"""The runtime instrumentor: what it gives to readers, and takes away again."""

from __future__ import annotations

import gc

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_concurrency.instrumentors.runtime import RuntimeInstrumentor
from otel_concurrency.signals.producer import default_producer


def heard(reader: InMemoryMetricReader) -> set[str]:
    data = reader.get_metrics_data()
    scopes = data.resource_metrics[0].scope_metrics if data else ()
    return {metric.name for scope in scopes for metric in scope.metrics if metric.name.startswith("cpython.")}


def test_a_reader_hears_of_collections_until_it_is_removed():
    reader, before = InMemoryMetricReader(), list(gc.callbacks)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    assert default_producer().attach(provider)
    instrumentor = RuntimeInstrumentor()
    instrumentor.instrument()
    try:
        gc.collect()
        assert heard(reader) >= {"cpython.gc.pause.duration", "cpython.gil.enabled"}
    finally:
        instrumentor.uninstrument()
    assert gc.callbacks == before
    assert heard(reader) == set()
    default_producer().detach()
    provider.shutdown()
