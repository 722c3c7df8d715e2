"""Where the metric producer meets the SDK: the only file that knows the SDK's private ways with metrics.

A reader asks for metrics through one callback, `MetricReader._collect`. The `MeterProvider` sets it with
`_set_collect_callback` to `SynchronousMeasurementConsumer.collect`, which it looks up anew for a reader that
is added later. `Attachment` puts ours around both. See `opentelemetry/sdk/metrics/_internal/__init__.py`,
`measurement_consumer.py` and `export/__init__.py`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics import ExemplarFilter, MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics._internal import instrument as sdk_instrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Metric,
    MetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_concurrency.signals.names import Kind

Extend = Callable[[MetricReader, MetricsData | None], MetricsData | None]
"""Takes what the SDK collected for a reader, `None` for nothing; returns what the reader shall receive."""

_INSTRUMENT_CLASSES: dict[Kind, Any] = {
    # Ours are read, not added to: who prefers low memory wants the totals of such instruments as they are.
    "counter": sdk_instrument._ObservableCounter,
    "updowncounter": sdk_instrument._ObservableUpDownCounter,
    "gauge": sdk_instrument._ObservableGauge,
    "histogram": sdk_instrument._Histogram,
}

_LACK_EXPONENTIAL_HISTOGRAMS = (
    "opentelemetry.exporter.prometheus",  # and prometheus_remote_write: a warning at each collection
    "azure.monitor.opentelemetry.exporter",  # sends a value of 0 instead
    "otel_concurrency.endpoints",  # the formats of /metrics have no place for them
)
"""Packages whose readers or exporters cannot take an exponential histogram."""


class Attachment:
    """Our callback around those of a provider's readers, the present ones and those added later.

    Args:
        provider: An SDK provider.
        extend: Called once per collection, after the SDK's own; must not raise.

    Raises:
        AttributeError: The SDK is not built as this file expects.
    """

    def __init__(self, provider: MeterProvider, extend: Extend) -> None:
        self.provider = provider
        self._extend = extend
        self._is_active = True
        self._inside = threading.local()
        self._consumer: Any = provider._measurement_consumer
        self._consumer_had = vars(self._consumer).get("collect")
        self._consumer_callback = self._around(self._consumer.collect)
        self._replaced: weakref.WeakKeyDictionary[MetricReader, tuple[Any, Any]] = weakref.WeakKeyDictionary()
        readers = self.readers()
        vars(self._consumer)["collect"] = self._consumer_callback
        try:
            for reader in readers:
                if reader._collect is not None:
                    callback = self._around(reader._collect)
                    self._replaced[reader] = (callback, reader._collect)
                    reader._set_collect_callback(callback)
        except BaseException:
            self.restore()
            raise

    def readers(self) -> list[MetricReader]:
        """Return the readers that the provider has now."""
        return list(self._consumer._reader_storages)

    def restore(self) -> None:
        """Put the SDK's own callbacks back; one that somebody has wrapped since stays, and is silent."""
        self._is_active = False
        callback = self._consumer_callback
        for reader in self.readers():
            ours, original = self._replaced.get(reader, (callback, callback.__wrapped__))
            if reader._collect is ours:
                reader._set_collect_callback(original)
        if vars(self._consumer).get("collect") is callback:
            if self._consumer_had is None:
                del self._consumer.collect
            else:
                self._consumer.collect = self._consumer_had
        self._replaced.clear()

    def _around(self, inner: Any) -> Any:
        def collect(reader: MetricReader, *args: Any, **kwargs: Any) -> MetricsData | None:
            # Another library's wrapper may lead from one of ours into the next: only the outermost extends.
            if not self._is_active or getattr(self._inside, "collect", False):
                data: MetricsData | None = inner(reader, *args, **kwargs)
                return data
            self._inside.collect = True
            try:
                return self._extend(reader, inner(reader, *args, **kwargs))
            finally:
                self._inside.collect = False

        collect.__wrapped__ = inner  # type: ignore[attr-defined]
        return collect


def exemplar_filter(provider: MeterProvider) -> ExemplarFilter:
    """Return the provider's exemplar filter: its argument, or `OTEL_METRICS_EXEMPLAR_FILTER`."""
    return getattr(provider._sdk_config, "exemplar_filter", None) or TraceBasedExemplarFilter()


def temporalities(reader: MetricReader) -> Mapping[Kind, AggregationTemporality]:
    """Return what a reader wants for each kind of instrument."""
    of_class = reader._instrument_class_temporality
    return {kind: of_class[instrument_class] for kind, instrument_class in _INSTRUMENT_CLASSES.items()}


def takes_exponential_histograms(reader: MetricReader) -> bool:
    """Tell whether a reader and its exporter can take exponential histograms; what is unknown can."""
    exporter = getattr(reader, "_exporter", None)
    ancestry = (*type(reader).__mro__, *type(exporter).__mro__)
    return not any(ancestor.__module__.startswith(_LACK_EXPONENTIAL_HISTOGRAMS) for ancestor in ancestry)


def with_metrics(
    data: MetricsData | None, provider: MeterProvider, scope: InstrumentationScope, metrics: list[Metric]
) -> MetricsData:
    """Return collected data with more metrics, under the provider's resource.

    Encoders keep one entry per resource and per scope, the last: what has the same is joined, never repeated.
    """
    resource = provider._sdk_config.resource
    if data is None or not data.resource_metrics:
        scopes = [ScopeMetrics(scope, metrics, scope.schema_url or "")]
        return MetricsData([ResourceMetrics(resource, scopes, resource.schema_url)])
    first, *others = data.resource_metrics
    scopes = list(first.scope_metrics)
    for position, known in enumerate(scopes):
        if known.scope == scope:
            scopes[position] = replace(known, metrics=[*known.metrics, *metrics])
            break
    else:
        scopes.append(ScopeMetrics(scope, metrics, scope.schema_url or ""))
    return MetricsData([replace(first, scope_metrics=scopes), *others])
