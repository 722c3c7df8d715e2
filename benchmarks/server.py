"""The service under load, in one of its variants, and the processes beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
# Clock ids of other processes: the kernel's CPUCLOCK_SCHED of a process (`linux/posix-timers.h`).
_CPU_CLOCK_OF_PROCESS = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A running service.

    Attributes:
        port: Where it answers, on loopback.
        pid: Its process; `opentelemetry-instrument` replaces itself, so there is only one.
    """

    port: int
    pid: int

    def cpu_s(self) -> float:
        """Return the CPU time, user and system, of all its threads so far, in seconds."""
        if sys.platform == "linux":
            return time.clock_gettime((~self.pid << 3) | _CPU_CLOCK_OF_PROCESS)
        import psutil

        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def get(self, path: str) -> Any:
        """Return the decoded JSON answer to a GET request."""
        return get_json(self.port, path)


def get_json(port: int, path: str) -> Any:
    """Return the decoded JSON answer of a server on loopback."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return json.load(answer)


@contextmanager
def running_service(
    bin_folder: Path, sink_port: int | None, extra: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run the service under uvicorn: one worker, uvloop, httptools.

    Args:
        bin_folder: The `bin` of the environment it runs in.
        sink_port: Where telemetry goes; `None` runs it bare.
        extra: Environment variables on top.

    Raises:
        SystemExit: It did not start; what it wrote is in the message.
    """
    port = free_port()
    command = [
        *(() if sink_port is None else (str(bin_folder / "opentelemetry-instrument"),)),
        *(str(bin_folder / "uvicorn"), "app:app", "--app-dir", str(ROOT / "benchmarks" / "service")),
        *("--port", str(port), "--loop", "uvloop", "--http", "httptools", "--workers", "1"),
        *("--no-access-log", "--log-level", "warning"),
    ]
    environ = service_environ(bin_folder, sink_port, extra or {})
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        # An empty folder: `opentelemetry-instrument` puts the current one on the module path.
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=output)
        try:
            wait_for_port(port, process)
            yield Server(port, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output.seek(0)
            written = output.read().strip()
            if written:
                print(f"request: the service wrote:\n{written[-2000:]}", file=sys.stderr)


def service_environ(bin_folder: Path, sink_port: int | None, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the service: the user's own OTel settings left out, ours put in."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    environ["PATH"] = f"{bin_folder}{os.pathsep}{environ.get('PATH', '')}"
    if sink_port is not None:
        environ["OTEL_SERVICE_NAME"] = "benchmark"
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{sink_port}"
        environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    return {**environ, **extra}


@contextmanager
def running_sink() -> Iterator[int]:
    """Run the sink in a process of its own; yield its port."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def loaded(port: int, *options: str) -> dict[str, float]:
    """Load a port from a process of its own; return what it measured."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"benchmarks: the service ended with code {process.returncode} before it served")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"benchmarks: the service did not answer within {START_TIMEOUT_S:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
