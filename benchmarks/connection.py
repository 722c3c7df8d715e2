"""Measures checkouts in this process and prints one line of JSON: ns of each kind of `KINDS`.

No server is asked for anything: SQLAlchemy's connections are those of an empty SQLite database, asyncpg's are
stubs. Times are CPU time of the thread, as in `benchmarks.measure`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import asyncpg
import sqlalchemy

from otel_concurrency.instrumentors.connection_pools import ConnectionPoolInstrumentor

TURNS = 2_000
"""Checkouts and checkins in one reading; nobody else wants a connection."""


class Stub:
    """An open connection of asyncpg's that is asked for nothing."""

    _addr = ("nowhere", 5432)
    _params = SimpleNamespace(database="nothing")

    def is_closed(self) -> bool:
        return False

    def _set_proxy(self, proxy: object) -> None:
        pass


def engine() -> sqlalchemy.Engine:
    """Return an engine with a pool of its default size."""
    return sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.QueuePool)


async def pool() -> Any:
    """Return a pool of asyncpg's, full of stubs."""
    made = asyncpg.create_pool("postgresql://nobody@nowhere/nothing", min_size=0, max_size=5)
    await made
    for holder in made._holders:
        holder._con, holder._generation = Stub(), made._generation
    return made


async def sqlalchemy_ns(lending: sqlalchemy.Engine) -> float:
    """Return the time of a checkout and a checkin of a pool of SQLAlchemy's."""
    before = time.thread_time_ns()
    for _ in range(TURNS):
        lending.raw_connection().close()
    return (time.thread_time_ns() - before) / TURNS


async def asyncpg_ns(lending: Any) -> float:
    """Return the time of an `acquire` of asyncpg's and of what gives the connection back."""
    before = time.thread_time_ns()
    for _ in range(TURNS):
        (await lending.acquire())._holder._release()
    return (time.thread_time_ns() - before) / TURNS


KINDS: dict[str, Callable[[Any], Awaitable[float]]] = {
    "sqlalchemy": sqlalchemy_ns,
    "asyncpg": asyncpg_ns,
}
VARIANTS: dict[str, Callable[[], object]] = {
    "bare": lambda: None,
    "ours": lambda: ConnectionPoolInstrumentor().instrument(),
}


async def best(seconds: float) -> dict[str, float]:
    """Return of each kind the smallest of the readings that fit into a time; the kinds take turns."""
    lending = {"sqlalchemy": engine(), "asyncpg": await pool()}
    readings: dict[str, list[float]] = {kind: [] for kind in KINDS}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(readings["asyncpg"]) < 5:
        for kind, read in KINDS.items():
            readings[kind].append(await read(lending[kind]))
    return {kind: min(found) for kind, found in readings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connection", description=__doc__)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to read (default %(default)s)")
    arguments = parser.parse_args()
    VARIANTS[arguments.variant]()
    print(json.dumps(asyncio.new_event_loop().run_until_complete(best(arguments.seconds))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
