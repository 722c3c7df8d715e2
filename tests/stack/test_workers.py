"""Workers that come and go: their series in the real Prometheus add up to the traffic."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.redis_server import running_redis
from tests.stack.backend import Backend, eventually
from tests.workers import APP, JOBS, ask, send_jobs, serving

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

WORKERS = 4
REQUESTS = 200
REQUESTS_PER_WORKER = 30
TASKS = 30
TASKS_PER_CHILD = 4


def handled(backend: Backend, service: str) -> Counter[int]:
    """Return what each worker counted, by process id: `pod-1-4711-9f3c2a` is 4711's."""
    counts: Counter[int] = Counter()
    for series in backend.series(f'handled_total{{job="{service}"}}'):
        instance = series.labels["instance"]
        if instance != "pod-1":  # the parent's, which handles nothing
            counts[int(instance.split("-")[2])] += int(series.value or 0)
    return counts


def environ(backend: Backend, service: str) -> dict[str, str]:
    return {
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoints["otlp_http"],
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-1",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }


def test_series_of_recycled_gunicorn_workers_add_up_to_the_requests(backend: Backend, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn_worker", reason="gunicorn and uvicorn-worker are not installed")
    (tmp_path / "service.py").write_text(APP)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = (
        *("gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--workers", str(WORKERS)),
        *("--max-requests", str(REQUESTS_PER_WORKER), "--bind", f"127.0.0.1:{port}", "service:app"),
    )
    with serving(command, tmp_path, environ(backend, "web")):
        # How many a worker answers before it leaves is its own affair, so the traffic ends when some have
        # been replaced.
        answered = ask(port, lambda answered: answered.total() >= REQUESTS and len(answered) > WORKERS)
    eventually(
        f"what the workers answered: {answered}",
        lambda: handled(backend, "web"),
        lambda counted: counted == answered,
    )


def test_series_of_recycled_celery_children_add_up_to_the_tasks(backend: Backend, tmp_path: Path) -> None:
    pytest.importorskip("celery", reason="celery is not installed")
    (tmp_path / "jobs.py").write_text(JOBS)
    with running_redis(tmp_path) as redis:
        limit = f"--max-tasks-per-child={TASKS_PER_CHILD}"
        worker = ("celery", "-A", "jobs", "worker", "--concurrency=2", limit, "--loglevel=WARNING")
        with serving(worker, tmp_path, environ(backend, "jobs") | {"REDIS": redis}):
            done = send_jobs(TASKS, redis, tmp_path)
    assert len(done) >= TASKS / TASKS_PER_CHILD
    eventually(
        f"what the children did: {done}", lambda: handled(backend, "jobs"), lambda counted: counted == done
    )
