"""A real Redis on loopback, for the time of a test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = shutil.which("redis-server")

PERSISTENT = ("--appendonly", "yes", "--appendfsync", "always")
"""Options of a server that writes down each change before it answers."""


class RedisServer:
    """A server that can be killed and started again, on the same port and with what it had.

    Args:
        folder: Holds its log and its data.
        options: Further ones of its command.

    Attributes:
        address: Its URL.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        if COMMAND is None:
            pytest.skip("needs redis-server (Debian: apt-get install redis-server)")
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port = found.getsockname()[1]
        self.address = f"redis://127.0.0.1:{self._port}/0"
        self._log = folder / "redis.log"
        self._command = [COMMAND, "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        self._command += ["--dir", str(folder), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("a") as log:
            self._process = process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it without a chance to do anything more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"  # else it is loading what it had
        except OSError:
            return False


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[str]:
    """Start a server that keeps nothing, yield its address, and end it; skip where there is none."""
    server = RedisServer(folder, *options)
    try:
        server.start()
        yield server.address
    finally:
        server.stop()
