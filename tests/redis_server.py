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


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[str]:
    """Start a server that keeps nothing, yield its address, and end it; skip where there is none."""
    if COMMAND is None:
        pytest.skip("needs redis-server (Debian: apt-get install redis-server)")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [COMMAND, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    command += options
    with (folder / "redis.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert server.poll() is None, (folder / "redis.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "Redis does not answer"
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)
