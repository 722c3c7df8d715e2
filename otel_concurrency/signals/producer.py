"""The specification's `MetricProducer`, which the Python SDK lacks: our aggregates, for every reader."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from itertools import count

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider as APIMeterProvider
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION
from opentelemetry.sdk.metrics import Exemplar, ExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import Metric, MetricReader, MetricsData
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_concurrency._version import __version__
from otel_concurrency.probes.histogram import ProbeExemplar
from otel_concurrency.signals import sdk_metrics
from otel_concurrency.signals.names import SCOPE_NAME
from otel_concurrency.signals.overhead import Overhead
from otel_concurrency.signals.points import seconds
from otel_concurrency.signals.readings import HistogramReading, Source
from otel_concurrency.signals.stand_in import seen_ids
from otel_concurrency.signals.streams import Collected, Exemplars, Stream, series_key

_logger = logging.getLogger(__name__)

_SCOPE = InstrumentationScope(SCOPE_NAME, __version__)
_EXPLICIT = "explicit_bucket_histogram"
_COLLECTION = "collection"


class MetricProducer:
    """Hands the readings of its sources to every reader of a meter provider, whenever that reader collects.

    Histograms are exponential, unless the reader cannot take those, or
    `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` is set to `explicit_bucket_histogram`. Views do
    not apply: like the specification's, this producer comes after the aggregation that they configure.

    `overhead` is a source with what the collections cost; like any other, it counts once it is registered.

    Args:
        clock: Wall-clock time, ns since the epoch.
        explicit_histograms: Whether every reader gets explicit bounds; `None` leaves it to the variable.
    """

    def __init__(
        self, *, clock: Callable[[], int] = time.time_ns, explicit_histograms: bool | None = None
    ) -> None:
        self.overhead = Overhead(clock=clock)
        self._clock = clock
        self._wants_explicit_histograms = explicit_histograms
        self._explicit_histograms = False
        self._attachment: sdk_metrics.Attachment | None = None
        self._serials = count()
        self._sources: dict[int, Source] = {}
        self._complained: set[int | None] = set()
        self._begin()
        _producers.add(self)

    def __repr__(self) -> str:
        where = "attached" if self._attachment else "detached"
        return f"<MetricProducer [{where}, {len(self._sources)} sources, {len(self._streams)} readers]>"

    def register(self, source: Source) -> None:
        """Add a source; one that is registered already stays as it is."""
        with self._lock:
            if not any(source is known for known in self._sources.values()):
                self._sources[next(self._serials)] = source

    def unregister(self, source: Source) -> None:
        """Remove a source; unknown ones are ignored."""
        with self._lock:
            for serial, known in list(self._sources.items()):
                if known is source:
                    del self._sources[serial]

    def attach(self, meter_provider: APIMeterProvider) -> bool:
        """Serve a provider's readers, those added later included; an earlier provider is left.

        Args:
            meter_provider: The SDK's; any other has no readers.

        Returns:
            Whether the readers will be served. An SDK that does not work as we know gets a log record.
        """
        if not isinstance(meter_provider, MeterProvider) or getattr(meter_provider, "_disabled", False):
            return False
        if self._attachment and self._attachment.provider is meter_provider:
            return True
        self.detach()
        asked = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION, "")
        self._explicit_histograms = (
            asked.strip().lower() == _EXPLICIT
            if self._wants_explicit_histograms is None
            else self._wants_explicit_histograms
        )
        try:
            self._attachment = sdk_metrics.Attachment(meter_provider, self._extend)
            for reader in self._attachment.readers():
                self._stream_of(reader)
        except Exception:
            _logger.exception(
                "This OpenTelemetry SDK's metric readers are unknown to us; they get no metrics of ours"
            )
            self.detach()
        return self._attachment is not None

    def expect(self, reader: MetricReader) -> None:
        """Keep exemplars for a reader from now on; else that begins when it collects for the first time."""
        self._stream_of(reader)

    def detach(self) -> None:
        """Leave the provider and its readers as they were."""
        if self._attachment:
            self._attachment.restore()
            self._attachment = None
        with self._lock:
            self._streams.clear()

    def _begin(self, began_unix_ns: int = 0) -> None:
        """Start without any reader's past: at first, and again in a forked child."""
        self._began_unix_ns = began_unix_ns
        self._lock = threading.Lock()
        self._streams: weakref.WeakKeyDictionary[MetricReader, Stream] = weakref.WeakKeyDictionary()

    def _begin_in_child(self) -> None:
        self._begin(self._clock())
        self.overhead.begin()

    def _extend(self, reader: MetricReader, data: MetricsData | None) -> MetricsData | None:
        attachment = self._attachment
        if attachment is None:
            return data
        began_ns = time.thread_time_ns()
        try:
            if metrics := self._collect(reader, sdk_metrics.exemplar_filter(attachment.provider)):
                data = sdk_metrics.with_metrics(data, attachment.provider, _SCOPE, metrics)
        except Exception as error:
            self._complain(None, self, error)
        self.overhead.add(_COLLECTION, time.thread_time_ns() - began_ns)
        return data

    def _collect(self, reader: MetricReader, keep: ExemplarFilter) -> list[Metric]:
        stream = self._stream_of(reader)
        with stream.lock:
            with self._lock:
                failures: list[tuple[int, Exception]] = []
                collected = list(self._read_sources(failures))
                at_unix_ns = self._clock()
                registered = dict(self._sources)
                fresh = _exemplars_of(collected, keep)
                for each in self._streams.values():
                    each.expect(fresh)
                exemplars = stream.take_expected()
            metrics = stream.tell(collected, registered.keys(), exemplars, at_unix_ns)
        for serial, error in failures:
            self._complain(serial, registered[serial], error)
        return metrics

    def _read_sources(self, failures: list[tuple[int, Exception]]) -> Iterable[Collected]:
        for serial, source in self._sources.items():
            try:
                start_unix_ns = max(source.start_unix_ns, self._began_unix_ns)
                yield Collected(serial, start_unix_ns, tuple(source.collect()))
            except Exception as error:
                failures.append((serial, error))

    def _stream_of(self, reader: MetricReader) -> Stream:
        with self._lock:
            stream = self._streams.get(reader)
            if stream is None:
                stream = self._streams[reader] = Stream(
                    sdk_metrics.temporalities(reader),
                    explicit_histograms=self._explicit_histograms
                    or not sdk_metrics.takes_exponential_histograms(reader),
                )
            return stream

    def _complain(self, serial: int | None, culprit: object, error: Exception) -> None:
        if serial not in self._complained:
            self._complained.add(serial)
            _logger.error("%r failed and its metrics are missing; said once", culprit, exc_info=error)


def _exemplars_of(collected: Iterable[Collected], keep: ExemplarFilter) -> Exemplars:
    """Make exemplars at once, so that no context stays alive until the slowest reader collects."""
    exemplars: Exemplars = {}
    for source in collected:
        for reading in source.readings:
            if not isinstance(reading, HistogramReading):
                continue
            for attributes, state in reading.points:
                if found := [made for each in state.exemplars if (made := _exemplar(each, keep))]:
                    exemplars[reading.instrument.name, series_key(attributes)] = found
    return exemplars


def _exemplar(observed: ProbeExemplar, keep: ExemplarFilter) -> Exemplar | None:
    """Return an exemplar in the trace that its origin belongs to, `None` where the filter wants none."""
    context = observed.origin
    if not isinstance(context, Context):
        return None
    value = seconds(observed.value_ns)
    if not keep.should_sample(value, observed.at_unix_ns, {}, context):
        return None
    span = seen_ids(trace.get_current_span(context))
    span_id, trace_id = (span.span_id, span.trace_id) if span.is_valid else (None, None)
    return Exemplar({}, value, observed.at_unix_ns, span_id, trace_id)


_producers: weakref.WeakSet[MetricProducer] = weakref.WeakSet()


def _begin_in_child() -> None:
    for producer in list(_producers):
        producer._begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


_default = MetricProducer()
_default.register(_default.overhead)


def default_producer() -> MetricProducer:
    """Return the one that the distro attaches, and that the instrumentors give their sources to."""
    return _default
