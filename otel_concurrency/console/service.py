"""A service in a subprocess of its own: started, ready when it says so, always stopped."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

KEPT_LINES = 40
"""The last lines of its output, for when something goes wrong."""

STOP_GRACE_S = 10.0
CHECK_INTERVAL_S = 0.2
_READY = " listening on "


class ServiceFailed(Exception):  # noqa: N818  (told to a person as it is)
    """A service ended, or did not become ready; the message holds the end of its output."""


class Service:
    """One program, from its start to its end.

    Args:
        name: What people call it.
        command: The program and its arguments; it prints `<name> listening on <url>` when it is ready.
        environment: All its environment variables.

    Attributes:
        url: Where it listens; empty until it is ready.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.url = ""
        self._command = command
        self._environment = dict(environment)
        self._output: deque[str] = deque(maxlen=KEPT_LINES)
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, name=f"output-of-{name}", daemon=True)

    def start(self, timeout_s: float, check: Callable[[], None]) -> str:
        """Start it and return its URL once it listens.

        Args:
            timeout_s: How long to wait for that.
            check: Called while waiting; what it raises ends the wait.

        Raises:
            ServiceFailed: It ended instead, or took too long.
        """
        # In a session of its own, so that Ctrl-C reaches us alone and we end it in order.
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._reader.start()
        deadline = time.monotonic() + timeout_s
        while not self._ready.wait(CHECK_INTERVAL_S):
            check()
            if time.monotonic() > deadline:
                raise ServiceFailed(self._report(f"{self.name} did not listen within {timeout_s:.0f} s"))
        if not self.url:
            raise ServiceFailed(self._report(f"{self.name} ended before it listened"))
        return self.url

    def check_running(self) -> None:
        """Raise ServiceFailed if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise ServiceFailed(self._report(f"{self.name} ended with exit code {self._process.returncode}"))

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End it, by force after a grace period; fine if it never started."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader.ident is not None:
            self._reader.join()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._output.append(line.rstrip())
                if not self.url and _READY in line:
                    self.url = line.split(_READY, 1)[1].strip()
                    self._ready.set()
        self._ready.set()

    def _report(self, what: str) -> str:
        return "\n".join((f"{what}; the end of its output:", *(f"    {line}" for line in self._output)))


def environment_for(base: Mapping[str, str], name: str, endpoint: str) -> dict[str, str]:
    """Return the environment of an instrumented service that sends to us, and soon.

    Args:
        base: The surrounding environment; its own OpenTelemetry settings and proxies are left out, or they
            would decide what the demo shows.
        name: The `service.name`.
        endpoint: Where OTLP/HTTP is received.
    """
    kept = {key: value for key, value in base.items() if not key.startswith("OTEL_")}
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        kept.pop(proxy, None)
    return kept | {
        "OTEL_SERVICE_NAME": name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
    }
