"""A clock that is set by hand, a source whose readings are given, and readers of the real SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.metrics import (
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableUpDownCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    Metric,
    MetricReader,
)
from opentelemetry.sdk.resources import Resource

from otel_concurrency.signals.names import SCOPE_NAME
from otel_concurrency.signals.producer import MetricProducer
from otel_concurrency.signals.readings import Reading

DELTA = AggregationTemporality.DELTA


@dataclass
class ManualClock:
    """Wall-clock time, ns since the epoch."""

    now: int = 1_000

    def __call__(self) -> int:
        return self.now


@dataclass(eq=False)
class GivenSource:
    """Hands out what it was given; fails while an error is set."""

    start_unix_ns: int = 500
    readings: list[Reading] = field(default_factory=list)
    error: Exception | None = None
    on_collect: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return "<GivenSource>"

    def collect(self) -> list[Reading]:
        self.on_collect()
        if self.error:
            raise self.error
        return list(self.readings)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def source() -> GivenSource:
    return GivenSource()


@pytest.fixture
def make_source() -> type[GivenSource]:
    return GivenSource


@pytest.fixture
def producer(clock: ManualClock, source: GivenSource) -> Iterator[MetricProducer]:
    producer = MetricProducer(clock=clock)
    producer.register(source)
    yield producer
    producer.detach()


@pytest.fixture
def serve(producer: MetricProducer) -> Iterator[Callable[..., MeterProvider]]:
    """Make a provider with these readers and attach the producer to it."""
    providers: list[MeterProvider] = []

    def serve(*readers: MetricReader, **options: object) -> MeterProvider:
        provider = MeterProvider(
            readers, resource=Resource({"service.name": "shop"}), shutdown_on_exit=False, **options
        )
        providers.append(provider)
        assert producer.attach(provider)
        return provider

    yield serve
    for provider in providers:
        provider.shutdown()


@pytest.fixture
def cumulative() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def delta() -> InMemoryMetricReader:
    return InMemoryMetricReader(
        preferred_temporality={ObservableCounter: DELTA, ObservableUpDownCounter: DELTA, Histogram: DELTA}
    )


@pytest.fixture
def heard() -> Callable[[InMemoryMetricReader], list[Metric]]:
    """Let a reader collect, and return the metrics that came from us."""

    def heard(reader: InMemoryMetricReader) -> list[Metric]:
        data = reader.get_metrics_data()
        if data is None:
            return []
        (resource_metrics,) = data.resource_metrics
        ours = [scope for scope in resource_metrics.scope_metrics if scope.scope.name == SCOPE_NAME]
        assert len(ours) <= 1
        return [metric for scope in ours for metric in scope.metrics]

    return heard
