"""How a process may end, and that nothing is lost on the way out; nor much time, with the collector away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import ANY
from urllib.request import urlopen

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

from otel_concurrency.console import Receiver, Store
from otel_concurrency.signals.names import EVENTS, SHUTDOWN_PROGRESS
from tests.e2e.conftest import COMMAND, clean_environ, environ_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks")

UPSTREAM_S = 14.6
"""What upstream takes to end with the collector away; a busy machine of ours must still be well below."""

RECORD = """
    import logging, os, signal, sys, threading, time
    from opentelemetry import metrics, trace

    logging.getLogger("app").addHandler(logging.NullHandler())  # else they are printed, as without us
    tracer = trace.get_tracer("app")
    orders = metrics.get_meter("app").create_counter("orders")

    def record(name="order"):
        with tracer.start_as_current_span(name):
            logging.getLogger("app").warning("ordered")
            orders.add(1)

"""


def program(source: str) -> str:
    return textwrap.dedent(RECORD) + textwrap.dedent(source)


SHUTDOWN = "process.shutdown."


@dataclass
class Arrived:
    """What the receiver got: spans by name, log records, the counter's last totals added up, our events."""

    spans: Counter[str]
    logs: int
    orders: int
    events: list[str] = field(default_factory=list)


def arrived(receiver: OtlpProtoTestServer) -> Arrived:
    totals = {
        str(each.resource): point.as_int
        for each in receiver.drain_metrics()
        if each.metric.name == "orders"
        for point in each.metric.sum.data_points
    }
    records = [each.log_record for each in receiver.drain_log_records()]
    return Arrived(
        Counter(each.span.name for each in receiver.drain_spans()),
        sum(record.body.string_value == "ordered" for record in records),
        sum(totals.values()),
        [each.event_name[len(SHUTDOWN) :] for each in records if each.event_name.startswith(SHUTDOWN)],
    )


ROOM = {"OTEL_BSP_MAX_QUEUE_SIZE": "1000000", "OTEL_BLRP_MAX_QUEUE_SIZE": "1000000"}
"""For what records without end: the SDK drops what its queue has no room for, while a receiver is slow."""

FEW = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi,concurrency_fastapi,celery,aiohttp-client,asyncio"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program, and end it with the test if nothing else does."""
    running: list[subprocess.Popen[str]] = []

    def start(source: str, env: dict[str, str], *, bare: bool = False) -> subprocess.Popen[str]:
        path = tmp_path / "program.py"
        path.write_text(program(source))
        running.append(
            subprocess.Popen(
                [*([] if bare else [str(COMMAND)]), sys.executable, str(path)],
                cwd=tmp_path,
                env=clean_environ() | FEW | env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return running[-1]

    yield start
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.pid, signal.SIGKILL)  # its children hold the pipes, too
        each.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


ENDS = {
    "return": ("pass", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "sys.exit with a text": ("sys.exit('bye')", 1),
    "an exception": ("raise ValueError('bye')", 1),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    "SIGTERM in a thread": (
        "threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start(); time.sleep(60)",
        -signal.SIGTERM,
    ),
    "os._exit": ("os._exit(5)", 5),
    "os._exit in a thread": ("threading.Thread(target=os._exit, args=(5,)).start(); time.sleep(60)", 5),
    "an exit handler that records": ("import atexit; atexit.register(record)", 0),
    "a thread that goes on": (
        "threading.Thread(target=lambda: (threading.main_thread().join(), record())).start()",
        0,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_script_that_ends_at_once_loses_nothing_and_ends_as_without_us(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer, end: str
) -> None:
    source, status = ENDS[end]
    number = 4 if "record" in source else 3
    script = f"""
        for _ in range(3):
            record()
        {source}
    """
    with_us, without_us = ended(start(script, environ_for(receiver))), ended(start(script, {}, bare=True))
    assert with_us[:2] == without_us[:2] == (status, "")
    events = ["started", "completed"] if "SIGTERM" in source else []
    assert arrived(receiver) == Arrived(Counter({"order": number}), number, number, events)


@pytest.mark.parametrize("end", ["return", "SIGTERM", "os._exit"])
def test_over_grpc_nothing_is_lost_either(start: Callable[..., subprocess.Popen[str]], end: str) -> None:
    source, status = ENDS[end]
    with Store() as store, Receiver(store, http_port=0, grpc_port=0) as receiver:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        script = f"""
            for _ in range(3):
                record()
            {source}
        """
        assert ended(start(script, env)) == (status, "", "")
        spans = store.query("SELECT name FROM spans")
        logs = store.query("SELECT body FROM logs WHERE body = '\"ordered\"'")
        orders = store.query("SELECT int_value FROM metric_points WHERE name = 'orders'")
    assert (spans, len(logs), orders[-1]) == ([("order",)] * 3, 3, (3,))


UNDELIVERED = "Telemetry cannot be delivered"
EXPORTS_TO = {
    "refused, HTTP": ("unused_port", "http/protobuf"),
    "refused, gRPC": ("unused_port", "grpc"),
    "no answer, HTTP": ("black_hole", "http/protobuf"),
    "no answer, gRPC": ("black_hole", "grpc"),
}


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A loopback port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("where", EXPORTS_TO)
@pytest.mark.parametrize(
    "end", ["pass", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "os._exit(0)"]
)
def test_with_the_collector_away_a_script_ends_within_its_budget(
    start: Callable[..., subprocess.Popen[str]], request: pytest.FixtureRequest, where: str, end: str
) -> None:
    """The line to hold is the budget and half a second; a busy machine gets more, but not upstream's time."""
    fixture, protocol = EXPORTS_TO[where]
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{request.getfixturevalue(fixture)}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    process = start(f"record(); print(time.time(), flush=True); {end}", env)
    _, out, err = ended(process)
    took = time.time() - float(out)
    print(f"{where}: {took:.2f} s from the last line to the end")
    assert took < UPSTREAM_S * 0.6
    assert "Traceback" not in err
    if end == "pass":
        assert err.count(UNDELIVERED) == 1, err
    assert process.returncode == (-signal.SIGTERM if "SIGTERM" in end else 0)


@pytest.mark.parametrize("budget", ["0", "0.5"])
def test_the_budget_is_what_the_setting_says(
    start: Callable[..., subprocess.Popen[str]], black_hole: int, budget: str
) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{black_hole}",
        "OTEL_PYTHON_CONCURRENCY_EXIT_TIMEOUT": budget,
    }
    code, out, err = ended(start("record(); print(time.time(), flush=True)", env))
    assert time.time() - float(out) < 2.9
    assert (code, err.count(UNDELIVERED), err.count("\n")) == (0, budget != "0", budget != "0")


def test_a_second_sigterm_ends_the_process_at_once(
    start: Callable[..., subprocess.Popen[str]], black_hole: int
) -> None:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{black_hole}",
        "OTEL_PYTHON_CONCURRENCY_EXIT_TIMEOUT": "50",
    }
    process = start("record(); print(1, flush=True); time.sleep(60)", env)
    assert process.stdout is not None
    process.stdout.readline()
    began = time.monotonic()
    while process.poll() is None:  # the first may still be under way when the second comes
        process.terminate()
        time.sleep(0.05)
    assert process.returncode == -signal.SIGTERM
    assert time.monotonic() - began < 40


def test_kill_loses_nothing_that_was_recorded_before_the_signal(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer
) -> None:
    """The signal comes at any moment: while a span ends, a log record is emitted, a counter counts."""
    source = "for number in range(10**9): record(); print(number, flush=True)"
    process = start(source, environ_for(receiver) | ROOM)
    assert process.stdout is not None
    for _ in range(300):
        process.stdout.readline()
    process.terminate()
    code, out, err = ended(process)
    done = 300 + len(out.splitlines())
    got = arrived(receiver)
    assert (code, "Traceback" in err) == (-signal.SIGTERM, False)
    least = min(got.spans["order"], got.logs, got.orders)
    assert least >= done, f"{got} of {done}; {err}"


def test_kill_of_a_uvicorn_service_under_load_loses_nothing(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer
) -> None:
    """uvicorn takes the signal, serves what it has, and raises it again: that is when we come."""
    process = start(
        """
            import uvicorn

            async def app(scope, receive, send):
                record(scope["path"])
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"ok"})

            with __import__("socket").create_server(("127.0.0.1", 0)) as listener:
                print(listener.getsockname()[1], flush=True)
                config = uvicorn.Config(app, lifespan="off", log_level="critical")
                uvicorn.Server(config).run(sockets=[listener])
        """,
        environ_for(receiver) | ROOM,
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    served: list[str] = []

    def ask(worker: int) -> None:
        for number in range(10**6):
            try:
                with urlopen(f"http://127.0.0.1:{port}/{worker}/{number}", timeout=30) as response:
                    response.read()
            except OSError:
                return
            served.append(f"/{worker}/{number}")

    clients = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
    for client in clients:
        client.start()
    while len(served) < 100:
        time.sleep(0.01)
    process.terminate()
    code, _, err = ended(process)
    for client in clients:
        client.join()
    got = arrived(receiver)
    assert (code, err) == (-signal.SIGTERM, "")
    assert set(served) - set(got.spans) == set()
    assert got.orders >= len(served)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_lose_nothing(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer, method: str
) -> None:
    script = f"""
        import multiprocessing

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            children = [context.Process(target=record, args=("child",)) for _ in range(2)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            print([child.exitcode for child in children])
    """
    assert ended(start(script, environ_for(receiver))) == (0, "[0, 0]\n", ANY)
    got = arrived(receiver)
    assert (got.spans["child"], got.logs, got.orders) == (2, 2, 2)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_item_of_a_pool_arrives(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer, method: str
) -> None:
    """The end of the block sends SIGTERM to the workers."""
    script = f"""
        import multiprocessing

        if __name__ == "__main__":
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                pool.map(record, ["item"] * 50, chunksize=5)
    """
    assert ended(start(script, environ_for(receiver)))[:2] == (0, "")
    got = arrived(receiver)
    assert (got.spans["item"], got.logs, got.orders, got.events) == (50, 50, 50, [])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process does with a signal")
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_keeps_the_default_action_where_a_signal_may_be_lost(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer, method: str, native: bool
) -> None:
    """Whoever ends it waits for its end: the end of a `with Pool()` block waited for ever, now and then."""
    script = f"""
        import multiprocessing

        def is_caught(_=None):
            caught = next(line for line in open("/proc/self/status") if line.startswith("SigCgt"))
            return bool(int(caught.split()[1], 16) >> signal.SIGTERM - 1 & 1)

        def tell():
            sys.exit(is_caught())

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            process = context.Process(target=tell)
            process.start()
            process.join()
            with context.Pool(1) as pool:
                print(is_caught(), bool(process.exitcode), pool.apply(is_caught))
    """
    settings = {"OTEL_PYTHON_CONCURRENCY_NATIVE": str(native).lower()}
    assert ended(start(script, environ_for(receiver) | settings)) == (0, f"True {native} {native}\n", "")


def test_a_forked_child_sends_what_it_has_and_is_quick_if_it_has_nothing(
    start: Callable[..., subprocess.Popen[str]], black_hole: int, receiver: OtlpProtoTestServer
) -> None:
    script = """
        if pid := os.fork():
            assert os.waitpid(pid, 0)[1] == 0
        else:
            record("child")
            os._exit(0)
    """
    assert ended(start(script, environ_for(receiver)))[:2] == (0, "")
    assert arrived(receiver).spans == {"child": 1}

    script = """
        record()
        began = time.monotonic()
        for end in (lambda: os._exit(0), lambda: os.kill(os.getpid(), signal.SIGTERM)):
            if pid := os.fork():
                os.waitpid(pid, 0)
            else:
                end()
        print(time.monotonic() - began, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{black_hole}",
        "OTEL_PYTHON_CONCURRENCY_EXIT_TIMEOUT": "30",
    }
    code, out, _ = ended(start(script, env))
    assert (code, float(out) < 20) == (-signal.SIGKILL, True)


def test_the_signal_is_left_alone_where_it_was_asked_for(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer
) -> None:
    env = environ_for(receiver) | {"OTEL_PYTHON_CONCURRENCY_EXIT_SIGNALS": "false"}
    code, *_ = ended(start("record(); os.kill(os.getpid(), signal.SIGTERM)", env))
    assert (code, arrived(receiver).spans) == (-signal.SIGTERM, {})


def test_an_exit_that_takes_long_tells_what_it_waits_for(
    start: Callable[..., subprocess.Popen[str]], receiver: OtlpProtoTestServer
) -> None:
    script = """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        pool.submit(time.sleep, 3.5)
        pool.submit(record)
    """
    assert ended(start(script, environ_for(receiver))) == (0, "", ANY)
    metrics = receiver.drain_metrics()
    records = [each.log_record for each in receiver.drain_log_records()]
    told = [record for record in records if record.event_name.startswith(SHUTDOWN)]
    assert [record.event_name for record in told[:2]] == [
        "process.shutdown.started",
        "process.shutdown.progress",
    ]
    assert told[-1].event_name == "process.shutdown.completed"
    assert 2 <= len(told[1:-1]) <= 4
    assert {pair.key for pair in told[1].attributes} >= set(EVENTS[SHUTDOWN_PROGRESS][1])
    assert "shutdown" in told[1].body.string_value.lower()
    (duration,) = [each.metric for each in metrics if each.metric.name == "process.shutdown.duration"]
    (point,) = duration.exponential_histogram.data_points
    assert (point.count, 3 < point.sum < 60) == (1, True)


def test_a_pool_does_not_wait_for_a_collector_that_refuses(
    start: Callable[..., subprocess.Popen[str]], unused_port: int
) -> None:
    script = """
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(record, ["item"] * 10, chunksize=1)
            began = time.monotonic()
        print(time.monotonic() - began, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{unused_port}",
        "OTEL_PYTHON_CONCURRENCY_EXIT_TIMEOUT": "30",
    }
    process = start(script, env)
    assert process.stdout is not None
    out = process.stdout.readline()
    assert (process.wait(60), float(out) < 8) == (-signal.SIGKILL, True)
