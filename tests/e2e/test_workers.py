"""Servers that fork or start workers: every worker tells of itself, and together of all the traffic."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import environ_for
from tests.redis_server import running_redis
from tests.workers import APP, JOBS, ask, send_jobs, serving

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    pytest.mark.timeout(180),
]

REQUESTS = 40
WORKERS = 2
GUNICORN = ("gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--workers", str(WORKERS))


# It ends a worker that is not there within five seconds: not enough on a busy machine.
UVICORN = ("uvicorn", "--workers", str(WORKERS), "--timeout-worker-healthcheck", "60")


def instance(record: Any) -> str:
    return next(
        each.value.string_value for each in record.resource.attributes if each.key == "service.instance.id"
    )


def enough(answered: Counter[int]) -> bool:
    return len(answered) == WORKERS and answered.total() >= REQUESTS


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    ("command", "before"),
    [
        pytest.param((*GUNICORN, "--bind"), 0, id="gunicorn"),
        pytest.param((*GUNICORN, "--preload", "--bind"), 1000, id="gunicorn-preload"),
        pytest.param((*UVICORN, "--port"), 0, id="uvicorn"),
    ],
)
def test_every_worker_tells_of_what_it_did(
    command: tuple[str, ...], before: int, tmp_path: Path, receiver: OtlpProtoTestServer, port: int
) -> None:
    pytest.importorskip("uvicorn_worker", reason="gunicorn and uvicorn-worker are not installed")
    (tmp_path / "service.py").write_text(APP)
    env = environ_for(receiver) | {
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-1",
        "BEFORE_THE_FORK": "yes" if before else "",
    }
    address = f"127.0.0.1:{port}" if command[0] == "gunicorn" else str(port)
    with serving((*command, address, "service:app"), tmp_path, env):
        answered = ask(port, enough)
    spans = Counter(instance(each) for each in receiver.drain_spans() if each.span.kind == 2)
    logs = Counter(
        instance(each)
        for each in receiver.drain_log_records()
        if each.log_record.body.string_value == "worked"
    )
    metrics: dict[str, int] = {}
    for each in receiver.drain_metrics():
        if each.metric.name == "handled":
            metrics[instance(each)] = each.metric.sum.data_points[0].as_int
    # A worker is told by its process id: `pod-1-4711-9f3c2a`.
    by_process = Counter({int(name.split("-")[2]): count for name, count in spans.items()})
    assert by_process == answered
    assert logs == spans
    of_arbiter = {"pod-1": before} if before else {}
    assert metrics == dict(spans) | of_arbiter


TASKS_PER_CHILD = 3


def test_no_task_is_lost_when_celery_recycles_its_children(
    tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    """Twenty tasks, three to a child: each child tells of its own, the last of them included."""
    pytest.importorskip("celery", reason="celery is not installed")
    pytest.importorskip("redis", reason="the client of redis is not installed")
    (tmp_path / "jobs.py").write_text(JOBS)
    with running_redis(tmp_path) as redis:
        env = environ_for(receiver) | {
            "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-1",
            "REDIS": redis,
        }
        limit = f"--max-tasks-per-child={TASKS_PER_CHILD}"
        worker = ("celery", "-A", "jobs", "worker", "--concurrency=2", limit, "--loglevel=WARNING")
        with serving(worker, tmp_path, env):
            done = send_jobs(20, redis, tmp_path)
    spans = [each for each in receiver.drain_spans() if each.span.name == "run/jobs.work"]
    assert Counter(int(instance(each).split("-")[2]) for each in spans) == done
    assert len({each.span.span_id for each in spans}) == 20
    metrics: dict[str, int] = {}
    for each in receiver.drain_metrics():
        if each.metric.name == "handled":
            metrics[instance(each)] = each.metric.sum.data_points[0].as_int
    assert metrics.pop("pod-1") == 1000
    assert {int(name.split("-")[2]): count for name, count in metrics.items()} == done
    assert max(done.values()) <= TASKS_PER_CHILD
