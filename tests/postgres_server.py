"""A real PostgreSQL on loopback, for the time of a test. It refuses root, who runs it as somebody else."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_USERS = ("postgres", "nobody")


class Postgres(NamedTuple):
    """Where a server listens; everybody who asks may come in, as `postgres`."""

    host: str
    port: int
    database: str

    @property
    def address(self) -> str:
        """What asyncpg and psycopg take."""
        return f"postgresql://postgres@{self.host}:{self.port}/{self.database}"

    @property
    def pool_name(self) -> str:
        """How the pools of its clients are called."""
        return f"{self.host}:{self.port}/{self.database}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server of its own data, yield where it is, and end it; skip where there is none."""
    programs = _programs()
    if programs is None:
        pytest.skip("needs PostgreSQL (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    who = _not_root(folder)
    data, log = folder / "data", folder / "log"
    try:
        made = [
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
        ]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **who)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": str(folder),
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with log.open("w") as output:
            server = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), *options],
                stdout=output,
                stderr=output,
                cwd=folder,
                **who,
            )
        try:
            _await(server, [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], log)
            yield Postgres("127.0.0.1", port, "postgres")
        finally:
            server.send_signal(signal.SIGINT)  # its clients are sent away
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(server: subprocess.Popen[bytes], is_ready: list[str], log: Path) -> None:
    deadline = time.monotonic() + 30
    while subprocess.run(is_ready, check=False).returncode != 0:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, "PostgreSQL does not answer"
        time.sleep(0.05)


def _programs() -> Path | None:
    """Return the folder of the newest server there is."""
    on_path = shutil.which("postgres")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(_DEBIAN.glob("*/bin"), key=lambda each: each.parent.name)
    return next((each for each in reversed(found) if (each / "initdb").exists()), None)


def _not_root(folder: Path) -> dict[str, Any]:
    """Return what lets a child be somebody whom the server accepts, and give them the folder."""
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam(next(name for name in _USERS if name in known))
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
