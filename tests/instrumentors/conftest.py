"""What the tests of instrumentors share: a reader that our producer is attached to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_concurrency.signals.producer import default_producer


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    default_producer().attach(provider)
    yield reader
    default_producer().detach()
    provider.shutdown()
