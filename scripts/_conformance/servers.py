"""The servers that libraries' tests talk to: those that our own tests start, one for each run.

Where the environment names one (`PGHOST`, `REDIS_URL`), it serves all runs, one after the other.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

_TREE = Path(__file__).resolve().parents[2]
_SHARED = threading.Lock()
_REDIS_OPTIONS = ("--enable-debug-command", "local")  # redis-py's tests let it answer with errors


@cache
def why_not(name: str) -> str:
    """Return why a server cannot be had; "" if it can."""
    import pytest

    try:
        with running(name):
            return ""
    except pytest.skip.Exception as reason:
        return str(reason)


@contextmanager
def running(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Have a server for a run.

    Args:
        name: `postgres` or `redis`; "" for none.

    Yields:
        Where it is, as `user@host:port/database`, and the variables that tell a library's tests.
    """
    if str(_TREE) not in sys.path:
        sys.path.append(str(_TREE))
    with ExitStack() as stack:
        if name == "postgres":
            if "PGHOST" in os.environ:
                stack.enter_context(_SHARED)
                host, port = os.environ["PGHOST"], os.environ.get("PGPORT", "5432")
            else:
                from tests.postgres_server import running_postgres

                server = stack.enter_context(running_postgres())
                host, port = server.host, str(server.port)
            variables = {"PGHOST": host, "PGPORT": port, "PGUSER": "postgres", "PGDATABASE": "postgres"}
            yield f"postgres@{host}:{port}/postgres", variables
        elif name == "redis":
            if "REDIS_URL" in os.environ:
                stack.enter_context(_SHARED)
                url = os.environ["REDIS_URL"]
            else:
                from tests.redis_server import running_redis

                folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
                url = stack.enter_context(running_redis(Path(folder), *_REDIS_OPTIONS))
            yield url.removeprefix("redis://"), {}
        else:
            yield "", {}
