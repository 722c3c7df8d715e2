"""Real Celery workers: what we count is what their tasks say of themselves, whatever the broker does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from tests.e2e.conftest import COMMAND, clean_environ, environ_for
from tests.redis_server import PERSISTENT, RedisServer, running_redis
from tests.workers import serving

pytest.importorskip("celery", reason="celery is not installed")
redis = pytest.importorskip("redis", reason="the client of redis is not installed")

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    pytest.mark.timeout(400),
]

LOAD = Path(__file__).with_name("celery_load.py")
SLOW_ONES = 4
WORKERS = 2
PREFETCHED = 4  # by each, Celery's default
NAME = "celery_load.work"


class Run(NamedTuple):
    """A line that a run has written."""

    number: int
    task_id: str
    task_try: int
    redelivered: int
    outcome: str


class Load:
    """Some tasks, a broker for them, and what their runs have written.

    Args:
        folder: Where all of it is.
        broker: The address.
        receiver: Where everything is exported to.
    """

    def __init__(self, folder: Path, broker: str, receiver: OtlpProtoTestServer) -> None:
        shutil.copy(LOAD, folder)
        self._folder = folder
        self._written = folder / "runs"
        self.environment = environ_for(receiver) | {"REDIS": broker, "RUNS": str(self._written)}
        self._client = redis.Redis.from_url(broker)

    def send(self, count: int, *, slow: int) -> None:
        """Send so many tasks, of which some are slow."""
        subprocess.run(
            [str(COMMAND), sys.executable, LOAD.name, str(count), str(slow)],
            cwd=self._folder,
            env=clean_environ() | self.environment | {"OTEL_METRICS_EXPORTER": "none"},
            check=True,
            timeout=120,
        )

    def runs(self) -> list[Run]:
        """Return what was written, in that order."""
        lines = self._written.read_text().splitlines() if self._written.exists() else []
        return [
            Run(int(number), task_id, int(task_try), int(redelivered), outcome)
            for number, task_id, task_try, redelivered, outcome in (line.split(maxsplit=4) for line in lines)
        ]

    def begun(self) -> int:
        """Count the slow runs that have begun, and not ended."""
        runs = self.runs()
        begun = Counter(run[:4] for run in runs if run.outcome == "begun")
        begun.subtract(run[:4] for run in runs if run.outcome != "begun" and run[:4] in begun)
        return begun.total()

    def taken(self) -> int:
        """Count the messages that the worker has taken, and not acknowledged."""
        return int(self._client.hlen("unacked"))

    def is_done(self, count: int) -> bool:
        """Whether each task has come to its end, and the broker has nothing more to deliver."""
        ended = {run.number for run in self.runs() if run.outcome not in ("begun", "retried")}
        return len(ended) == count and not self._client.llen("celery") and not self.taken()


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


def worker(pool: str) -> tuple[str, ...]:
    return (
        "celery",
        "-A",
        "celery_load",
        "worker",
        f"--pool={pool}",
        f"--concurrency={WORKERS}",
        "--loglevel=ERROR",
    )


class Counted:
    """What all processes of a worker have exported, added up."""

    def __init__(self, receiver: OtlpProtoTestServer) -> None:
        self._points: dict[tuple[str, str, tuple[tuple[str, str], ...]], Any] = {}
        for each in receiver.drain_metrics():
            instance = str(each.resource.attributes)
            for kind in ("sum", "exponential_histogram"):
                for point in getattr(each.metric, kind).data_points:
                    labels = tuple(sorted((at.key, at.value.string_value) for at in point.attributes))
                    self._points[instance, each.metric.name, labels] = point

    def total(self, name: str, *by: str) -> Counter[tuple[str, ...]]:
        """Return the totals of a metric, by some attributes."""
        totals: Counter[tuple[str, ...]] = Counter()
        for (_, metric, labels), point in self._points.items():
            if metric == name:
                value = point.count if hasattr(point, "scale") else point.as_int
                totals[tuple(dict(labels).get(key, "") for key in by)] += value
        return +totals


def counted(receiver: OtlpProtoTestServer) -> dict[str, Any]:
    """Return everything that we count of runs."""
    count = Counted(receiver)
    name = "celery.task.name"
    return {
        "completed": count.total("celery.task.completed", name, "celery.task.outcome", "error.type"),
        "duplicates": count.total("celery.task.duplicates", name),
        "redelivered": count.total("celery.task.redelivered", name),
        "retries": count.total("celery.task.retries", name),
        "queued": count.total("celery.task.queue.duration", name, "messaging.destination.name"),
        "prefetched": count.total("celery.task.prefetch.duration", name),
        "run": count.total("celery.task.duration", name, "celery.task.outcome"),
    }


def truth(runs: list[Run]) -> dict[str, Any]:
    """Return the same, as the runs have written it; each try is what its first end was."""
    ended = [run for run in runs if run.outcome != "begun"]
    first: dict[tuple[str, int], Run] = {}
    for run in ended:
        first.setdefault((run.task_id, run.task_try), run)
    error_types = {"failed": "ValueError"}
    return {
        "completed": Counter((NAME, run.outcome, error_types.get(run.outcome, "")) for run in first.values()),
        "duplicates": +Counter({(NAME,): len(ended) - len(first)}),
        "redelivered": Counter((NAME,) for run in ended if run.redelivered),
        "retries": Counter((NAME,) for run in ended if run.outcome == "retried"),
        "queued": Counter({(NAME, "celery"): len(ended)}),
        "prefetched": Counter({(NAME,): len(ended)}),
        "run": Counter((NAME, run.outcome) for run in ended),
    }


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_is_counted_is_what_the_tasks_say(
    pool: str, tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    count = 60
    with running_redis(tmp_path) as broker:
        load = Load(tmp_path, broker, receiver)
        load.send(count, slow=0)
        with serving(worker(pool), tmp_path, load.environment):
            wait(lambda: load.is_done(count))
    runs = load.runs()
    assert counted(receiver) == truth(runs)
    assert {run.outcome for run in runs} == {"finished", "failed", "ignored", "rejected", "retried"}


@pytest.mark.scenario  # how long Celery takes to come back is its own affair
@pytest.mark.parametrize("count", [200, 2_000], ids=["some", "many"])
def test_a_task_counts_once_although_its_broker_dies_and_delivers_it_again(
    count: int, tmp_path: Path, receiver: OtlpProtoTestServer
) -> None:
    """Redis is killed while tasks run that it takes for lost then, and started again with what it had."""
    server = RedisServer(tmp_path, *PERSISTENT)
    try:
        server.start()
        load = Load(tmp_path, server.address, receiver)
        load.send(count, slow=SLOW_ONES)
        with serving(worker("prefork"), tmp_path, load.environment):
            # With nothing under way between the two: else Celery loses messages, or its worker ends (5.7).
            wait(lambda: load.begun() == WORKERS and load.taken() >= WORKERS * PREFETCHED)
            server.kill()
            wait(lambda: load.begun() == 0)
            server.start()
            wait(lambda: load.is_done(count), 240)
    finally:
        server.stop()
    runs = load.runs()
    assert counted(receiver) == truth(runs)
    assert any(run.redelivered for run in runs)
    assert truth(runs)["duplicates"].total() > 0
    events = [
        each.log_record
        for each in receiver.drain_log_records()
        if each.log_record.event_name == "celery.task.duplicate"
    ]
    assert events
