"""The gateway: it keeps the traces that tell something, and measures all of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from otel_concurrency.signals import names
from tests.stack.backend import Backend, eventually
from tests.stack.collectors import LOOPBACK, collector, free_ports

pytestmark = pytest.mark.stack

SLOW_S = 0.8
ORDINARY = 30

TELLING: dict[str, Callable[[Span], object]] = {
    "failed": lambda span: span.set_status(StatusCode.ERROR, "no such item"),
    "slow": lambda span: None,
    "held the loop": lambda span: span.add_event(names.STALL_SPAN_EVENT),
    "was held up": lambda span: span.set_attribute(names.STALL_OVERLAP, 0.2),
    "had slow steps": lambda span: span.set_attribute(names.REQUEST_SLOW_STEPS, 1),
    "waited for a connection": lambda span: span.add_event(names.POOL_WAIT),
}


def test_it_keeps_the_traces_that_tell_something_and_measures_all(backend: Backend, tmp_path: Path) -> None:
    grpc, health = free_ports(2)
    service = f"gatewayed-{secrets.token_hex(4)}"
    settings = {
        "GATEWAY_GRPC_PORT": str(grpc),
        "GATEWAY_HEALTH_PORT": str(health),
        "GATEWAY_QUEUE_FOLDER": str(tmp_path / "queue"),
        "GATEWAY_KEEP_PERCENT": "0",
        "GATEWAY_WAIT": "1s",
        "GATEWAY_METRICS_INTERVAL": "1s",
        "JAEGER_OTLP_ENDPOINT": backend.endpoints["jaeger_otlp"],
        "PROMETHEUS_URL": backend.endpoints["prometheus"],
        "LOKI_URL": backend.endpoints["loki"],
    }
    with collector("gateway", tmp_path, health, settings):
        provider = TracerProvider(
            resource=Resource({"service.name": service, "service.instance.id": "one"}), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(f"{LOOPBACK}:{grpc}", insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("tests")

        def request(name: str, seconds: float, change: Callable[[Span], object]) -> str:
            end = time.time_ns()
            span = tracer.start_span(name, kind=SpanKind.SERVER, start_time=end - int(seconds * 1e9))
            assert isinstance(span, Span)
            change(span)
            span.end(end)
            return format(span.get_span_context().trace_id, "032x")

        # First, so that when the last of the others has arrived, these are decided on.
        ordinary = [request("ordinary", 0.01, lambda span: None) for _ in range(ORDINARY)]
        provider.force_flush()
        telling = {
            name: request(name, SLOW_S if name == "slow" else 0.01, change)
            for name, change in TELLING.items()
        }
        provider.shutdown()

        eventually(
            "the traces that tell something",
            lambda: {name for name, trace_id in telling.items() if backend.trace(trace_id)},
            lambda found: found == set(TELLING),
        )
        assert [trace_id for trace_id in ordinary if backend.trace(trace_id)] == []

        served = f'traces_span_metrics_calls_total{{job="{service}",span_kind="SPAN_KIND_SERVER"}}'
        counts = {"ordinary": ORDINARY, **dict.fromkeys(TELLING, 1)}
        eventually(
            "metrics of all spans, born at 0",
            lambda: {one.labels["span_name"]: one.value for one in backend.series(served)},
            lambda found: found == counts,
        )
        selector = f'traces_span_metrics_duration_seconds{{job="{service}",span_name="slow"}}'
        [slow] = backend.series(selector)
        assert (slow.count, slow.sum) == (1, pytest.approx(SLOW_S))
        assert [one.trace_id for one in backend.exemplars(selector)] == [telling["slow"]]
