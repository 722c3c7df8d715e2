"""Services whose workers are forked or recycled, and the traffic for them."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.conftest import COMMAND, clean_environ

APP = """
import logging, os
from fastapi import FastAPI
from opentelemetry import metrics

app = FastAPI()
handled = metrics.get_meter("test").create_counter("handled")
if os.environ.get("BEFORE_THE_FORK"):
    handled.add(1000)  # with preload: the arbiter's, and nobody else's

@app.get("/work")
async def work() -> dict[str, int]:
    handled.add(1)
    logging.getLogger("test").warning("worked")
    return {"pid": os.getpid()}
"""
JOBS = """
import os
from celery import Celery
from opentelemetry import metrics

app = Celery("jobs", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
handled = metrics.get_meter("test").create_counter("handled")
handled.add(1000)  # before the fork: the main process's, and nobody else's

@app.task
def work():
    handled.add(1)
    return os.getpid()
"""
SEND = """
import sys
import jobs
from collections import Counter
from celery import group

print(dict(Counter(group(jobs.work.s() for _ in range(int(sys.argv[1]))).apply_async().get(timeout=90))))
"""


@contextmanager
def serving(command: tuple[str, ...], folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a server until the end of the block, then end it as an operator does."""
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen(
            (str(COMMAND), *command),
            cwd=folder,
            env=clean_environ() | env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.seek(0)
            print(log.read())


def ask(port: int, until: Callable[[Counter[int]], bool]) -> Counter[int]:
    """Send requests, each on a connection of its own, until the answers by worker are enough."""
    answered: Counter[int] = Counter()
    deadline = time.monotonic() + 90
    while not until(answered) and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/work", timeout=10) as response:
                answered[int(response.read().decode().strip("{}").split(":")[1])] += 1
        except (ConnectionError, OSError):  # not there yet
            time.sleep(0.05)
    assert until(answered), answered
    return answered


def send_jobs(count: int, redis: str, folder: Path) -> Counter[int]:
    """Run Celery tasks and wait for all of them; returns how many each child did, by process id."""
    sent = subprocess.run(
        [sys.executable, "-c", SEND, str(count)],
        cwd=folder,
        env=clean_environ() | {"REDIS": redis},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert sent.returncode == 0, sent.stderr
    return Counter(ast.literal_eval(sent.stdout))
