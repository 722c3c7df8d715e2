"""Real programs under `opentelemetry-instrument`, and a receiver that keeps what they export."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.test._otlp_test_server import OtlpProtoTestServer

COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")
SILENT = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended by itself."""

    code: int
    out: str
    err: str

    def said(self) -> Any:
        """Return the JSON value in the last line that it printed."""
        return json.loads(self.out.splitlines()[-1])


Run = Callable[..., Finished]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program: `run(source, *flags, env={...})`; `bare=True` leaves the command out."""

    def run(source: str, *flags: str, env: Mapping[str, str] | None = None, bare: bool = False) -> Finished:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source))
        command = (
            [sys.executable, str(program)] if bare else [str(COMMAND), *flags, sys.executable, str(program)]
        )
        ended = subprocess.run(
            command,
            cwd=tmp_path,
            env=clean_environ() | (env or {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def receiver() -> Iterator[OtlpProtoTestServer]:
    """An OTLP/HTTP receiver on loopback; `environ_for` points a program at it."""
    with OtlpProtoTestServer() as server:
        yield server


def environ_for(receiver: OtlpProtoTestServer) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}"}


def clean_environ() -> dict[str, str]:
    """The environment without anything that OpenTelemetry or the test runner put there."""
    foreign = ("OTEL_", "FASTAPI_", "PYTEST_", "PYTHONPATH", "PYTHONWARNINGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def put_first(site: Path, package: str) -> dict[str, str]:
    """Make an installed package the first that the interpreter lists, whatever the file system's order.

    Its metadata is copied into a folder that comes before site-packages; the second copy counts as the same.
    """
    metadata = Path(str(distribution(package)._path))  # type: ignore[attr-defined]
    shutil.copytree(metadata, site / metadata.name)
    return {"PYTHONPATH": str(site)}


def fake_package(site: Path, name: str, entry_points: str, code: str = "") -> dict[str, str]:
    """Install a package of one module, `name`, with entry points, into a folder that comes first."""
    metadata = site / f"{name}-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    (site / f"{name}.py").write_text(textwrap.dedent(code))
    return {"PYTHONPATH": str(site)}


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A loopback port on which nobody answers: bound, and never listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
