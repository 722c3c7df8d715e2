"""The three signals of OTLP: their messages, where they are sent, and how they become rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otel_concurrency.console.log_rows import log_batch
from otel_concurrency.console.point_rows import point_batch
from otel_concurrency.console.schema import Batch
from otel_concurrency.console.span_rows import span_batch
from otel_concurrency.console.store import Store

MAX_ITEMS_PER_REQUEST = 100_000
"""Spans, records or data points stored of one request: two bytes of protobuf can be a whole record."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of OTLP.

    Attributes:
        name: `traces`, `metrics` or `logs`.
        service: The gRPC service that takes it, by its method `Export`.
        request: The message that is sent.
        response: The message that is answered.
        rejected_field: Where the answer's `partial_success` counts what was not accepted.
        to_batch: Turns a request into rows, given what it weighed and how many items to take.
    """

    name: str
    service: str
    request: type[Message]
    response: type[Message]
    rejected_field: str
    to_batch: Callable[[Any, int, int], Batch]

    @property
    def path(self) -> str:
        """Return the path of an HTTP request."""
        return f"/v1/{self.name}"

    def take(self, request: Message, size_bytes: int, store: Store) -> Message:
        """Store a request and return the answer, which tells what was left out and why.

        Raises:
            StoreError: The store was closed.
        """
        batch = self.to_batch(request, size_bytes, MAX_ITEMS_PER_REQUEST)
        store.insert(batch)
        response: Any = self.response()
        if batch.rejected:
            setattr(response.partial_success, self.rejected_field, batch.rejected_count)
            response.partial_success.error_message = batch.rejection
        answer: Message = response
        return answer


SIGNALS = (
    Signal(
        "traces",
        "opentelemetry.proto.collector.trace.v1.TraceService",
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
        "rejected_spans",
        span_batch,
    ),
    Signal(
        "metrics",
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        ExportMetricsServiceRequest,
        ExportMetricsServiceResponse,
        "rejected_data_points",
        point_batch,
    ),
    Signal(
        "logs",
        "opentelemetry.proto.collector.logs.v1.LogsService",
        ExportLogsServiceRequest,
        ExportLogsServiceResponse,
        "rejected_log_records",
        log_batch,
    ),
)
