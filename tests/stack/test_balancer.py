"""The balancer before two gateways: whatever way its spans come, a trace is judged as a whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otel_concurrency.stack.paths import CONFIGURATION
from tests.stack.backend import Backend, eventually
from tests.stack.collectors import LOOPBACK, collector, free_ports

pytestmark = pytest.mark.stack

TRACES = 40
SPANS = 4
ACCEPTED = 'otelcol_receiver_accepted_spans_total{job="otel-gateway"} > 0'
IDS = RandomIdGenerator()


def traces(service: str) -> list[list[ReadableSpan]]:
    """Return traces of which only the last span tells that something failed."""
    resource, now = Resource({"service.name": service}), time.time_ns()
    return [
        [
            ReadableSpan(
                name=f"span {number}",
                kind=SpanKind.SERVER,
                context=SpanContext(trace_id, IDS.generate_span_id(), False, TraceFlags(1)),
                resource=resource,
                status=Status(StatusCode.ERROR if number == SPANS - 1 else StatusCode.UNSET),
                start_time=now,
                end_time=now + 1_000_000,
            )
            for number in range(SPANS)
        ]
        for trace_id in (IDS.generate_trace_id() for _ in range(TRACES))
    ]


@contextmanager
def two_gateways(backend: Backend, folder: Path) -> Iterator[list[str]]:
    """Run two gateways that keep nothing but failures; yield their addresses."""
    with ExitStack() as running:
        addresses = []
        for name in ("one", "two"):
            grpc, health = free_ports(2)
            settings = {
                "GATEWAY_GRPC_PORT": str(grpc),
                "GATEWAY_HEALTH_PORT": str(health),
                "GATEWAY_QUEUE_FOLDER": str(folder / name / "queue"),
                "GATEWAY_KEEP_PERCENT": "0",
                "GATEWAY_WAIT": "3s",
                "JAEGER_OTLP_ENDPOINT": backend.endpoints["jaeger_otlp"],
                "PROMETHEUS_URL": backend.endpoints["prometheus"],
                "LOKI_URL": backend.endpoints["loki"],
            }
            (folder / name).mkdir()
            running.enter_context(collector("gateway", folder / name, health, settings))
            addresses.append(f"{LOOPBACK}:{grpc}")
        yield addresses


def test_all_spans_of_a_trace_come_to_the_same_gateway(backend: Backend, tmp_path: Path) -> None:
    """A part that came to the other one would be a trace without a failure there, and be dropped."""
    service = f"balanced-{secrets.token_hex(4)}"
    grpc, health = free_ports(2)
    before = {one.labels["instance"] for one in backend.series(ACCEPTED)}
    with two_gateways(backend, tmp_path) as gateways:
        # A name that resolves to two addresses is not to be had here.
        loaded = yaml.safe_load((CONFIGURATION / "balancer.yaml").read_text(encoding="utf-8"))
        loaded["exporters"]["loadbalancing"]["resolver"] = {"static": {"hostnames": gateways}}
        file = tmp_path / "balancer.yaml"
        file.write_text(yaml.safe_dump(loaded), encoding="utf-8")
        settings = {"BALANCER_GRPC_PORT": str(grpc), "BALANCER_HEALTH_PORT": str(health)}
        with collector("balancer", tmp_path, health, settings, file=file):
            exporter = OTLPSpanExporter(f"{LOOPBACK}:{grpc}", insecure=True)
            made = traces(service)
            for number in range(SPANS):  # the first spans of all, the second ones, and so on
                part = [trace[number] for trace in made]
                assert exporter.export(part) is SpanExportResult.SUCCESS
            exporter.shutdown()

            def whole() -> int:
                return sum(len(trace) == SPANS for trace in backend.traces(service))

            assert eventually("whole traces", whole, lambda count: count >= TRACES) == TRACES
        used = eventually(
            "both gateways have told what they took",
            lambda: {one.labels["instance"] for one in backend.series(ACCEPTED)} - before,
            lambda instances: len(instances) >= 2,
        )
    assert len(used) == 2
