"""What docker-compose.yml runs, without Docker: two collectors, the shop, its worker, Redis, PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres_server import running_postgres
from tests.redis_server import running_redis
from tests.stack.backend import Backend, Span, eventually
from tests.stack.collectors import LOOPBACK, collector, free_ports
from tests.stack.dashboards import expressions, filled_in
from tests.stack.shop import REQUESTS, SHOP, environ, service

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

NAMES = {"storefront": "full-shop", "warehouse": "full-warehouse", "worker": "full-receipts"}

# What only this run has: a gateway, a database, Celery, a thread pool.
ASKED = (
    "traces_span_metrics_",
    "otelcol_processor_tail_sampling_",
    "db_client_",
    "celery_",
    "python_executor_",
)

EMPTY_WHERE_ALL_IS_WELL = (
    "db_client_connection_timeouts",  # nobody gives up waiting
    "db_client_connection_idle_max",  # asyncpg's pools have none
    "PoolExhausted",
    "PoolTimeouts",
    "ExecutorSaturated",
    "celery_task_retries",  # no receipt fails,
    'celery_task_name) (rate(celery_task_completed_total{job=~".+",instance=~".+",error_type!=""}',
    "celery_task_redelivered",
    "celery_task_duplicates",
    'status_code="STATUS_CODE_ERROR"',  # a 409 is the caller's mistake, not the server's
    "python_executor_task_transfer",  # no work goes to other processes,
    "python_executor_task_unretrieved",  # and none fails,
    "python_executor_task_abandoned",  # is given up,
    "python_executor_task_rejected",  # or refused
    "python_executor_worker_crashes",
)
"""Panels and alerts of those that have no answer here either, and why."""


@pytest.fixture(scope="module")
def traffic(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, int]]:
    """Send the traffic, and yield how many tasks of each coroutine it made; all programs run meanwhile."""
    folder = tmp_path_factory.mktemp("full-shop")
    with ExitStack() as running:
        agent = _collectors(backend, folder, running)
        broker = running.enter_context(running_redis(folder))
        database = running.enter_context(running_postgres()).address

        def start(program: str, *arguments: str, says: str = "listening on ") -> str:
            named = NAMES[program]
            run = service(named, folder, agent, *arguments, program=program, says=says)
            return running.enter_context(run)[1]

        start("worker", f"--broker={broker}", says="ready.")
        warehouse = start("warehouse", f"--database={database}")
        url = start("storefront", f"--warehouse={warehouse}", f"--broker={broker}")
        command = [sys.executable, str(SHOP), "traffic", f"--url={url}", f"--requests={REQUESTS}"]
        ended = subprocess.run(command, env=environ({}), capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        done = json.loads(ended.stdout)
        assert done["unexpected"] == {}
        yield {name: row["created"] for name, row in done["tasks"].items()}


def _collectors(backend: Backend, folder: Path, running: ExitStack) -> dict[str, str]:
    """Start a gateway and an agent before it; return where services export to."""
    gateway_grpc, gateway_health, grpc, http, health = free_ports(5)
    gateway = {
        "GATEWAY_GRPC_PORT": str(gateway_grpc),
        "GATEWAY_HEALTH_PORT": str(gateway_health),
        "GATEWAY_QUEUE_FOLDER": str(folder / "gateway-queue"),
        "GATEWAY_KEEP_PERCENT": "100",
        "GATEWAY_WAIT": "1s",
        "GATEWAY_METRICS_INTERVAL": "1s",
        "JAEGER_OTLP_ENDPOINT": backend.endpoints["jaeger_otlp"],
        "PROMETHEUS_URL": backend.endpoints["prometheus"],
        "LOKI_URL": backend.endpoints["loki"],
    }
    running.enter_context(collector("gateway", folder, gateway_health, gateway))
    agent = {
        "AGENT_GRPC_PORT": str(grpc),
        "AGENT_HTTP_PORT": str(http),
        "AGENT_HEALTH_PORT": str(health),
        "AGENT_QUEUE_FOLDER": str(folder / "agent-queue"),
        "TRACES_ENDPOINT": f"{LOOPBACK}:{gateway_grpc}",
        "PROMETHEUS_URL": backend.endpoints["prometheus"],
        "LOKI_URL": backend.endpoints["loki"],
    }
    running.enter_context(collector("agent", folder, health, agent))
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{grpc}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }


def test_every_receipt_is_mailed_once_in_the_trace_of_its_checkout(
    traffic: Mapping[str, int], backend: Backend
) -> None:
    """From the request through both collectors, Redis and a forked child: one trace, and its line in Loki."""
    receipts = traffic["storefront.send_receipt"]
    mailed = f'celery_task_completed_total{{job="{NAMES["worker"]}",celery_task_name="receipts.mail"}}'
    counted = eventually(
        "every receipt",
        lambda: sum(int(one.value or 0) for one in backend.series(mailed)),
        lambda count: count >= receipts,
    )
    assert counted == receipts

    def checkouts() -> list[list[Span]]:
        traces = backend.traces(NAMES["storefront"])
        return [trace for trace in traces if any(span.service == NAMES["worker"] for span in trace)]

    traces = eventually("every trace", checkouts, lambda found: len(found) >= receipts)
    assert len(traces) == receipts
    ran = Counter(
        (span.name, span.kind) for trace in traces for span in trace if span.service == NAMES["worker"]
    )
    assert ran == {("run/receipts.mail", "consumer"): receipts}
    trace_id = traces[0][0].trace_id
    lines = eventually(
        "the worker's line",
        lambda: [one for one in backend.records(trace_id) if one.labels["service_name"] == NAMES["worker"]],
    )
    assert any(" mailed" in line.body for line in lines)


def test_every_reservation_is_a_use_of_a_connection(traffic: Mapping[str, int], backend: Backend) -> None:
    """But for the items that were sold out, which nobody writes down."""
    reserved = traffic["warehouse.check_quality"] - 6
    asked = traffic["storefront.fetch_stock"]
    uses = f'db_client_connection_use_time_seconds{{job="{NAMES["warehouse"]}"}}'
    making_the_table = 2
    expected = reserved + asked + making_the_table
    counted = eventually(
        "all uses",
        lambda: sum(int(one.count or 0) for one in backend.series(uses)),
        lambda count: count >= expected,
    )
    assert counted == expected


def test_what_the_plain_shop_cannot_answer_is_answered(traffic: Mapping[str, int], backend: Backend) -> None:
    """Every panel and rule about spans, databases, Celery and pools: with data, or told of above."""
    questions = [
        (where, filled_in(expression).replace('job="shop"', 'job=~"full-.+"'))
        for where, expression in expressions()
        if any(name in expression for name in ASKED)
    ]
    assert len(questions) > 40

    def unexplained() -> list[tuple[str, str]]:
        return [
            (where, expression)
            for where, expression in questions
            if not any(reason in f"{where} {expression}" for reason in EMPTY_WHERE_ALL_IS_WELL)
            and not backend.series(expression)
        ]

    empty = eventually("answers", unexplained, lambda found: not found)
    assert empty == []
