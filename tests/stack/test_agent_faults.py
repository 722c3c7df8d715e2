"""What the agent answered with yes arrives: whatever is away, and whenever it is killed."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from benchmarks.relay import relay
from tests.stack.backend import Backend, eventually
from tests.stack.collectors import LOOPBACK, collector, free_ports, nobody
from tests.stack.shop import INSTRUMENT

pytestmark = pytest.mark.stack

SPANS_A_BATCH = 50
MIB = 2**20
MADE = 5_000

PROGRAM = f"""
import os, signal, time
from opentelemetry import trace

tracer = trace.get_tracer("tests")
agent = int(os.environ["AGENT"])

def make(count):
    for number in range(count):
        tracer.start_span(f"span {{number}}").end()

make(50)
trace.get_tracer_provider().force_flush()
os.kill(agent, signal.SIGSTOP)
try:
    make({MADE} - 100)
    time.sleep(3)
finally:
    os.kill(agent, signal.SIGCONT)
trace.get_tracer_provider().force_flush()
make(50)
"""
IDS = RandomIdGenerator()


class Agent:
    """An agent that a test starts and kills; its address and its queue stay."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self._backend, self._folder = backend, folder
        self._grpc, self.http, self._health = free_ports(3)
        self.service = f"sender-{secrets.token_hex(4)}"
        self.exporter = OTLPSpanExporter(f"http://{LOOPBACK}:{self.http}/v1/traces", timeout=5)

    @contextmanager
    def running(self, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run it until the end of the block, where it is killed; yield its process."""
        settings = {
            "AGENT_GRPC_PORT": str(self._grpc),
            "AGENT_HTTP_PORT": str(self.http),
            "AGENT_HEALTH_PORT": str(self._health),
            "AGENT_QUEUE_FOLDER": str(self._folder / "queue"),
            "LOKI_URL": self._backend.endpoints["loki"],
            "TRACES_ENDPOINT": self._backend.endpoints["jaeger_otlp"],
            "PROMETHEUS_URL": self._backend.endpoints["prometheus"],
            **more,
        }
        with collector("agent", self._folder, self._health, settings) as process:
            yield process
            process.send_signal(signal.SIGKILL)
            process.wait()

    def send(self, padding: int = 0) -> list[str]:
        """Send one trace; return the ids of its spans if the agent took them, or none."""
        spans = batch(self.service, padding)
        if self.exporter.export(spans) is not SpanExportResult.SUCCESS:
            return []
        return [format(span.context.span_id, "016x") for span in spans]

    def arrived(self) -> list[str]:
        """Return the ids of the spans that Jaeger has."""
        return [span.span_id for trace in self._backend.traces(self.service) for span in trace]


def batch(service: str, padding: int) -> list[ReadableSpan]:
    """Return the spans of a trace, not yet sent, each larger by `padding` bytes."""
    trace_id, now = IDS.generate_trace_id(), time.time_ns()
    return [
        ReadableSpan(
            name=f"span {number}",
            kind=SpanKind.SERVER,
            context=SpanContext(trace_id, IDS.generate_span_id(), False, TraceFlags(1)),
            resource=Resource({"service.name": service}),
            attributes={"padding": "x" * padding},
            start_time=now,
            end_time=now + 1_000_000,
        )
        for number in range(SPANS_A_BATCH)
    ]


def test_what_it_took_while_jaeger_was_away_survives_its_death(backend: Backend, tmp_path: Path) -> None:
    agent = Agent(backend, tmp_path)
    with nobody() as away, agent.running(TRACES_ENDPOINT=away):
        taken = [span_id for _ in range(20) for span_id in agent.send()]
    assert len(taken) == 20 * SPANS_A_BATCH
    assert agent.arrived() == []
    with agent.running():
        eventually("all spans", agent.arrived, lambda ids: len(ids) >= len(taken))
    assert sorted(agent.arrived()) == sorted(taken)


def test_points_that_it_took_while_prometheus_was_away_arrive_with_their_own_time(
    backend: Backend, tmp_path: Path
) -> None:
    agent = Agent(backend, tmp_path)
    exporter = OTLPMetricExporter(f"http://{LOOPBACK}:{agent.http}/v1/metrics", timeout=5)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(
        [reader], resource=Resource({"service.name": agent.service}), shutdown_on_exit=False
    )
    counter = provider.get_meter("tests").create_counter("work", "{item}")
    with nobody() as away, agent.running(PROMETHEUS_URL=f"http://{away}"):
        for _ in range(3):
            counter.add(5)
            assert provider.force_flush()
        told = time.time()
    with agent.running():
        values = f'work_total{{job="{agent.service}"}}'
        eventually("the counter", lambda: backend.series(values))
        assert [one.value for one in backend.series(f"count_over_time({values}[10m])")] == [3]
        assert [one.value for one in backend.series(values)] == [15]
        [at] = backend.series(f"timestamp({values})")
        assert at.value is not None
        assert at.value <= told
    reader.shutdown()


def test_killed_under_load_it_loses_nothing(backend: Backend, tmp_path: Path) -> None:
    """Some spans may come twice: it cannot know whether Jaeger took what it was sending when it died."""
    agent = Agent(backend, tmp_path)
    taken: list[str] = []
    enough, done = threading.Event(), threading.Event()

    def load() -> None:
        while not done.is_set():
            taken.extend(agent.send())
            if len(taken) >= 20 * SPANS_A_BATCH:
                enough.set()

    sender = threading.Thread(target=load)
    with agent.running():
        sender.start()
        enough.wait(30)
    before = len(taken)
    with agent.running():
        eventually("it takes again", lambda: len(taken) >= before + 20 * SPANS_A_BATCH)
        done.set()
        sender.join(30)
        eventually("all spans", agent.arrived, lambda ids: set(ids) >= set(taken))
    assert set(agent.arrived()) >= set(taken)


def test_what_no_longer_fits_is_refused_and_the_rest_arrives(backend: Backend, tmp_path: Path) -> None:
    """The sender hears of it at once, and can count what it has to drop."""
    agent = Agent(backend, tmp_path)
    agent.exporter = OTLPSpanExporter(f"http://{LOOPBACK}:{agent.http}/v1/traces", timeout=1)
    limit = {"AGENT_QUEUE_BYTES": "300000"}
    with nobody() as away, agent.running(TRACES_ENDPOINT=away, **limit):
        answers = [agent.send(padding=2_000) for _ in range(8)]
        assert 0 < answers.count([]) < len(answers)
        for metric in ("otelcol_exporter_enqueue_failed_spans_total", "otelcol_receiver_refused_spans_total"):
            eventually(f"{metric} tells", lambda metric=metric: backend.series(f"{metric} > 0"))
    taken = [span_id for ids in answers for span_id in ids]
    with agent.running(**limit):
        eventually("what was taken", agent.arrived, lambda ids: len(ids) >= len(taken))
    assert sorted(agent.arrived()) == sorted(taken)


def test_its_file_stays_below_its_limit_and_what_it_took_arrives(backend: Backend, tmp_path: Path) -> None:
    """The queue says no before the file would, and the file has room for what a kill leaves in between."""
    agent = Agent(backend, tmp_path)
    agent.exporter = OTLPSpanExporter(f"http://{LOOPBACK}:{agent.http}/v1/traces", timeout=1)
    limit = {"AGENT_QUEUE_BYTES": str(8 * MIB), "AGENT_DISK_BYTES": str(80 * MIB)}
    with nobody() as away, agent.running(TRACES_ENDPOINT=away, **limit):
        answers = [agent.send(padding=20_000) for _ in range(12)]
        taken = [span_id for ids in answers for span_id in ids]
        assert 6 * MIB < len(taken) * 20_000 <= 8 * MIB
        files = [file.stat().st_size for file in (tmp_path / "queue").iterdir()]
        assert max(files) <= 80 * MIB
    with agent.running(**limit):
        eventually("what was taken", agent.arrived, lambda ids: len(ids) >= len(taken))
    assert sorted(agent.arrived()) == sorted(taken)


def test_a_slow_backend_slows_nobody_down(backend: Backend, tmp_path: Path) -> None:
    """Whatever goes to Jaeger takes seconds; the agent has answered all senders before the first is there."""
    agent = Agent(backend, tmp_path)
    with relay(backend.endpoints["jaeger_otlp"]) as way, agent.running(TRACES_ENDPOINT=way.address):
        way.delay_s = 5.0
        way.is_used.clear()  # by the agent's start
        taken = agent.send()
        assert way.is_used.wait(30)
        taken += [span_id for _ in range(19) for span_id in agent.send()]
        assert len(taken) == 20 * SPANS_A_BATCH
        assert agent.arrived() == []
        way.delay_s = 0.1
        eventually("all spans", agent.arrived, lambda ids: len(ids) >= len(taken))
    assert sorted(agent.arrived()) == sorted(taken)


@pytest.mark.scenario
@pytest.mark.timeout(300)
def test_an_outage_of_a_minute_under_load_loses_nothing(backend: Backend, tmp_path: Path) -> None:
    """Jaeger, Prometheus and Loki all away, the agent killed in the middle of it."""
    agent = Agent(backend, tmp_path)
    taken: list[str] = []
    with nobody() as away:
        gone = {"TRACES_ENDPOINT": away, "PROMETHEUS_URL": f"http://{away}", "LOKI_URL": f"http://{away}"}
        for _ in range(2):
            with agent.running(**gone):
                end = time.monotonic() + 30
                while time.monotonic() < end:
                    taken += agent.send()
                    time.sleep(0.1)
    assert agent.arrived() == []
    with agent.running():
        eventually("all spans", agent.arrived, lambda ids: len(set(ids)) >= len(taken))
    assert sorted(agent.arrived()) == sorted(taken)


def test_what_the_sdk_had_to_drop_is_counted_exactly(backend: Backend, tmp_path: Path) -> None:
    """The agent stands still for a while: arrived, dropped and failed are what was made."""
    agent = Agent(backend, tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    with agent.running() as process:
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "OTEL_SERVICE_NAME": agent.service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{agent.http}",
            "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
            "OTEL_BSP_MAX_QUEUE_SIZE": "500",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "AGENT": str(process.pid),
        }
        ended = subprocess.run(
            [str(INSTRUMENT), sys.executable, str(program)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        job = f'job="{agent.service}"'
        dropped = f'otel_sdk_processor_span_processed_total{{{job},error_type="queue_full"}}'
        failed = f'otel_sdk_exporter_span_exported_total{{{job},error_type!=""}}'

        def counts() -> dict[str, int]:
            return {
                "arrived": len(set(agent.arrived())),
                "dropped": sum(int(one.value or 0) for one in backend.series(dropped)),
                "failed": sum(int(one.value or 0) for one in backend.series(failed)),
            }

        found = eventually("all are told of", counts, lambda found: sum(found.values()) >= MADE)
    assert sum(found.values()) == MADE
    assert found["dropped"] > 0
