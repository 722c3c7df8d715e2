"""Real servers under `opentelemetry-instrument` with endpoints, asked as an operator asks them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from otel_concurrency.endpoints.client import AskError, Program, programs
from otel_concurrency.endpoints.directory import Directory
from tests.e2e.conftest import COMMAND, SILENT, Run, clean_environ
from tests.redis_server import running_redis
from tests.workers import JOBS

pytestmark = pytest.mark.timeout(180)

T = TypeVar("T")
DEADLINE_S = 60.0

APP = """
import asyncio, time
from fastapi import FastAPI
from otel_concurrency import readiness

app = FastAPI()
readiness.add_check("spare", lambda: not app.state._state.get("broken"))

def hold(seconds: float) -> None:
    time.sleep(seconds)

@app.get("/block/{seconds}")
async def block(seconds: float) -> None:
    async def later() -> None:
        await asyncio.sleep(0.01)
        hold(seconds)
    app.state.task = asyncio.create_task(later())

@app.get("/break")
async def break_() -> None:
    app.state.broken = True

@app.get("/")
async def hello() -> str:
    await asyncio.sleep(0)
    return "hello"
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(command: tuple[str, ...], folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen(
            (str(COMMAND), *command),
            cwd=folder,
            env=clean_environ() | SILENT | env,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.seek(0)
            print(log.read())


def eventually(what: str, look: Callable[[], T], enough: Callable[[T], bool] = bool) -> T:
    deadline = time.monotonic() + DEADLINE_S
    while not enough(found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert enough(found), f"{what}: {found}"
    return found


def environ(runtime: Path, **settings: object) -> dict[str, str]:
    named = {f"OTEL_PYTHON_CONCURRENCY_HTTP_{name}": str(value) for name, value in settings.items()}
    return {"XDG_RUNTIME_DIR": str(runtime)} | named


def those_there(runtime: Path) -> list[Program]:
    return programs(Directory(runtime / "otel-concurrency" / "programs"))


def serves(url: str) -> bool:
    try:
        return Program(url).get("/").status == 200
    except AskError:
        return False


@pytest.mark.parametrize(
    "loop",
    [
        "asyncio",
        pytest.param(
            "uvloop", marks=pytest.mark.skipif(sys.platform == "win32", reason="no uvloop on Windows")
        ),
    ],
)
def test_a_blocked_program_answers_and_says_where_it_stands(
    loop: str, tmp_path: Path, runtime: Path, port: int
) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "service.py").write_text(APP)
    env = environ(runtime, PORT=0, HEALTH_LIMIT=1.5, READY_LIMIT=1)
    app = f"http://127.0.0.1:{port}"
    with running(("uvicorn", "--loop", loop, "--port", str(port), "service:app"), tmp_path, env) as process:
        eventually("the application", lambda: serves(app))
        [program] = those_there(runtime)
        assert program.entry is not None
        assert program.entry.pid == process.pid
        assert program.ask("/health")["status"] == "alive"
        ready = eventually("ready", lambda: program.get("/ready"), lambda answer: answer.status == 200)
        assert [check["name"] for check in ready.json()["checks"]] == ["spare"]

        Program(app).get("/block/20")
        dead = eventually("dead", lambda: program.get("/livez"), lambda answer: answer.status == 503)
        [seen] = dead.json()["loops"]
        assert seen["blocked_for_s"] >= 1.5
        assert seen["frame"].startswith("service.hold (")
        assert seen["application"] == f"{tmp_path}/service.py:10"
        assert "event loop 0 is late" in program.get("/readyz").json()["troubles"]
        assert program.ask("/debug/diagnose")["loops"][0]["frame"].startswith("service.hold (")
        assert program.get("/debug/tasks").status == 200
        assert program.get("/metrics").status == 200


@pytest.mark.scenario
@pytest.mark.parametrize("way", ["block", "spin"])
def test_a_blocked_program_answers_at_once(way: str, tmp_path: Path, runtime: Path, port: int) -> None:
    """Within 200 ms, whether its loop waits in a call or computes."""
    pytest.importorskip("uvicorn")
    (tmp_path / "service.py").write_text(APP + SPIN)
    app = f"http://127.0.0.1:{port}"
    with running(("uvicorn", "--port", str(port), "service:app"), tmp_path, environ(runtime, PORT=0)):
        eventually("the application", lambda: serves(app))
        [program] = those_there(runtime)
        routes = ("/health", "/debug/tasks", "/debug/diagnose")
        for route in routes:  # what is imported and read for the first time is not what is timed
            program.ask(route)
        Program(app).get(f"/{way}/3")
        eventually("blocked", lambda: program.ask("/health")["loops"][0]["blocked_for_s"] > 0.1)
        for route in routes:
            began = time.monotonic()
            assert "service." in str(program.ask(route)["loops"])
            assert time.monotonic() - began < 0.2, route


SPIN = """
def compute(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        sum(range(1000))

@app.get("/spin/{seconds}")
async def spin(seconds: float) -> None:
    async def later() -> None:
        await asyncio.sleep(0.01)
        compute(seconds)
    app.state.task = asyncio.create_task(later())
"""


def test_a_program_that_is_told_to_end_is_not_ready(tmp_path: Path, runtime: Path, port: int) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "service.py").write_text(APP + SLOW_END)
    command = ("uvicorn", "--port", str(port), "service:app")
    with running(command, tmp_path, environ(runtime, PORT=0)) as process:
        app = f"http://127.0.0.1:{port}"
        eventually("the application", lambda: serves(app))
        [program] = those_there(runtime)
        assert program.get("/ready").status == 200
        process.send_signal(signal.SIGTERM)
        answer = eventually("not ready", lambda: program.get("/ready"), lambda answer: answer.status == 503)
        assert answer.json()["troubles"][0] == "told to end: SIGTERM"
        assert program.ask("/health")["status"] == "alive"
        (tmp_path / "end").touch()
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert those_there(runtime) == []


SLOW_END = """
import pathlib
from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan(app):
    yield
    while not pathlib.Path("end").exists():
        await asyncio.sleep(0.02)

app.router.lifespan_context = lifespan
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            ("gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--workers", "2", "--bind"),
            id="gunicorn",
        ),
        pytest.param(
            (
                "gunicorn",
                "--preload",
                "--worker-class",
                "uvicorn_worker.UvicornWorker",
                "--workers",
                "2",
                "--bind",
            ),
            id="gunicorn-preload",
        ),
        pytest.param(
            ("uvicorn", "--workers", "2", "--timeout-worker-healthcheck", "60", "--port"), id="uvicorn"
        ),
    ],
)
def test_every_worker_has_a_port_of_its_own(
    command: tuple[str, ...], tmp_path: Path, runtime: Path, port: int
) -> None:
    pytest.importorskip("uvicorn_worker")
    (tmp_path / "service.py").write_text(APP)
    address = f"127.0.0.1:{port}" if command[0] == "gunicorn" else str(port)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        wanted = found.getsockname()[1]
    with running((*command, address, "service:app"), tmp_path, environ(runtime, PORT=wanted)) as process:

        def workers() -> dict[int, str]:
            """Those that run a loop, by process id, the first process apart."""
            found = {}
            for program in those_there(runtime):
                try:
                    health = program.ask("/health")
                except AskError:
                    continue
                assert program.entry is not None
                assert health["pid"] == program.entry.pid
                if health["loops"] and program.entry.pid != process.pid:
                    found[program.entry.pid] = program.url
            return found

        before = eventually("two workers", workers, lambda found: len(found) == 2)
        everybody = {program.entry.pid: program.url for program in those_there(runtime) if program.entry}
        assert everybody[process.pid] == f"http://127.0.0.1:{wanted}"
        assert len(set(everybody.values())) == len(everybody) == 3
        gone = min(before)
        os.kill(gone, signal.SIGKILL)
        eventually("another in its place", workers, lambda found: len(found) == 2 and gone not in found)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        eventually("nobody left", lambda: not those_there(runtime))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_each_child_of_celery_has_a_port_of_its_own(tmp_path: Path, runtime: Path) -> None:
    pytest.importorskip("celery", reason="celery is not installed")
    pytest.importorskip("redis", reason="the client of redis is not installed")
    (tmp_path / "jobs.py").write_text(JOBS)
    with running_redis(tmp_path) as redis:
        env = environ(runtime, PORT=0) | {"REDIS": redis}
        command = ("celery", "-A", "jobs", "worker", "--concurrency", "2", "--loglevel", "ERROR")
        with running(command, tmp_path, env) as process:
            everybody = eventually(
                "a worker and two children", lambda: those_there(runtime), lambda found: len(found) == 3
            )
            assert len({each.url for each in everybody}) == 3
            assert process.pid in {each.entry.pid for each in everybody if each.entry}
            told = {each.ask("/health")["pid"]: each.ask("/health")["status"] for each in everybody}
            assert told == {each.entry.pid: "alive" for each in everybody if each.entry}
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        eventually("nobody left", lambda: not those_there(runtime))


def test_elsewhere_than_on_loopback_a_token_is_needed(run: Run, runtime: Path) -> None:
    program = """
        from otel_concurrency.endpoints.client import programs, Program
        found = programs()
        print([Program(each.url).get(route).status for each in found for route in ("/health", "/")],
              [each.get("/").status for each in found])
    """
    env = SILENT | environ(runtime, PORT=0, HOST="0.0.0.0")
    without = run(program, env=env)
    assert without.out == "[] []\n"
    assert without.err.count("\n") == 1
    assert "set OTEL_PYTHON_CONCURRENCY_HTTP_TOKEN" in without.err
    with_token = run(program, env=env | environ(runtime, TOKEN="sesame"))
    assert (with_token.out, with_token.err) == ("[200, 401] [200]\n", "")


def test_a_healthy_start_prints_nothing_and_the_end_is_not_delayed(
    run: Run, runtime: Path, port: int
) -> None:
    program = """
        import sys, threading
        from opentelemetry import metrics
        provider = metrics.get_meter_provider()
        print(sorted(thread.name for thread in threading.enumerate()),
              [name for name in sys.modules if name.startswith("otel_concurrency.endpoints")][:1])
    """
    ended = run(program, env=SILENT | environ(runtime, PORT=port))
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.endswith("['otel_concurrency.endpoints']\n")
    assert those_there(runtime) == []
    assert run(program, env=SILENT).out.endswith("[]\n")
