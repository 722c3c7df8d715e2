"""Where we attach to psycopg_pool: `getconn` and `putconn` of its pools, and `_connect`.

`connection()` and SQLAlchemy's `creator` come through them, and so do the null pools, which inherit them
(psycopg_pool 3.1 to 3.3, `pool.py` and `pool_async.py`). What `get_stats()` says is not enough: whole
milliseconds, no distribution, and after a timeout it goes on counting who waited as waiting.
"""

from __future__ import annotations

import os
import re
import sys
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Patches, switched
from otel_concurrency.hooks.pools.lending import Lending
from otel_concurrency.hooks.pools.pool_locks import POOL_LOCKS
from otel_concurrency.probes.connections import (
    ConnectionLevel,
    ConnectionPoolProbe,
    ConnectionProbe,
    pool_name,
)

_LOSS = "its connections are not counted"
_NO_NAME = re.compile(r"pool-\d+")  # what a pool calls itself that nobody named


class PsycopgPoolHook:
    """Tells of the connections of psycopg_pool's pools.

    Args:
        probe: Counts them.
    """

    def __init__(self, probe: ConnectionProbe) -> None:
        self._lending = Lending(probe, name=name_of, level=_level, is_denial=_is_denial, locks=_locks)
        self._patches = Patches(
            (
                LatePatch("psycopg_pool.pool", self._blocking, loss=_LOSS),
                LatePatch("psycopg_pool.pool_async", self._awaited, loss=_LOSS),
            )
        )

    def __repr__(self) -> str:
        return f"<PsycopgPoolHook {self._patches}>"

    def install(self) -> None:
        """Patch both kinds of pools, now or when they are imported; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put the originals back."""
        self._patches.remove()
        self._lending.forget()

    def _blocking(self, module: ModuleType) -> list[Patch]:
        return [
            Patch(module.ConnectionPool, "getconn", switched(self._lending.lends)),
            Patch(module.ConnectionPool, "putconn", switched(self._lending.takes_back)),
            Patch(module.ConnectionPool, "_connect", switched(self._lending.makes)),
        ]

    def _awaited(self, module: ModuleType) -> list[Patch]:
        acompat = sys.modules.get("psycopg_pool._acompat")
        if acompat is not None:  # psycopg_pool 3.2
            POOL_LOCKS.add_class(acompat.ACondition)
        return [
            Patch(module.AsyncConnectionPool, "getconn", switched(self._lending.lends_async)),
            Patch(module.AsyncConnectionPool, "putconn", switched(self._lending.takes_back_async)),
            Patch(module.AsyncConnectionPool, "_connect", switched(self._lending.makes_async)),
        ]


def name_of(pool: Any) -> str:
    """Return the name that the program gave the pool, else which server and database it is for."""
    name = str(pool.name)
    if not _NO_NAME.fullmatch(name) or callable(pool.conninfo) or callable(pool.kwargs):
        return name
    given = sys.modules["psycopg.conninfo"].conninfo_to_dict(pool.conninfo or "", **(pool.kwargs or {}))

    def find(key: str, variable: str, otherwise: object) -> str:
        return str(given.get(key) or os.environ.get(variable) or otherwise)

    host = find("host", "PGHOST", given.get("hostaddr") or "localhost")
    database = find("dbname", "PGDATABASE", find("user", "PGUSER", ""))
    port = find("port", "PGPORT", 5432)
    return pool_name(host, int(port) if port.isdigit() else None, database)


def _locks(pool: Any) -> list[object]:
    return [getattr(pool, "_lock", None)]


def _level(pool: Any, mine: ConnectionPoolProbe) -> ConnectionLevel:
    """Tell how full a pool is.

    What it calls its size includes connections that it would like to have, also while no server answers.
    """
    return ConnectionLevel(
        used=len(mine.held),
        idle=len(pool._pool),
        pending=len(mine.waits),
        limit=pool.max_size or None,
        idle_min=pool.min_size,
    )


def _is_denial(error: BaseException) -> bool:
    errors = sys.modules["psycopg_pool.errors"]
    return isinstance(error, (errors.PoolTimeout, errors.TooManyRequests))
