"""A collector of a test's own, beside the stack that the session shares: to be killed and started again."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from otel_concurrency.stack.paths import CONFIGURATION, binary_path, stack_folder
from otel_concurrency.stack.pins import RECIPES
from tests.stack.backend import eventually

LOOPBACK = "127.0.0.1"
END_S = 20.0

_open = build_opener(ProxyHandler({})).open


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listened on a moment ago."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((LOOPBACK, 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


@contextmanager
def nobody() -> Iterator[str]:
    """Yield an address at which nobody listens, and nobody will until the end of the block."""
    with socket.socket() as held:
        held.bind((LOOPBACK, 0))
        yield f"{LOOPBACK}:{held.getsockname()[1]}"


@contextmanager
def collector(
    name: str, folder: Path, health_port: int, settings: Mapping[str, str], *, file: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the collector with `collector-config/<name>.yaml`, or that file, until the end of the block."""
    file = file or CONFIGURATION / f"{name}.yaml"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(binary_path(RECIPES[0], stack_folder())), f"--config={file}"],
            env={**environ, **settings},
            stdout=output,
            stderr=output,
        )
    try:
        eventually(f"the {name} is ready; its log: {log}", lambda: _is_ready(process, health_port))
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}"
    try:
        with _open(f"http://{LOOPBACK}:{port}/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
