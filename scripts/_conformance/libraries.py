"""Libraries' own tests of the locks and pools that we touch, from their source packages, run by pytest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from _pythons.root import cache_folder
from _upstream.sources import UpstreamError, installed_versions, source_of

from _conformance import servers


@dataclass(frozen=True, slots=True)
class Library:
    """Tests of one library that run in one process.

    Attributes:
        distribution: Its name, in small letters, as pip knows it.
        tests: What pytest is to run; `{address}` in its words is where the server is.
        source: What of its source package they need; nothing where they come with the installed package.
        plugins: Of pytest, no others are loaded.
        server: `postgres` or `redis`, which every run gets one of its own of; none for "".
        variables: Environment variables.
        places: What has to have functions of ours on a side that is ours: `module:class`.
    """

    distribution: str
    tests: tuple[str, ...]
    source: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    server: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()


_SQLALCHEMY = ("test", "lib/sqlalchemy/testing/plugin", "setup.cfg", "pyproject.toml")
_TESTS = ("tests", "pyproject.toml")
_ANYIO = ("anyio.pytest_plugin", "pytest_mock", "pytest_timeout")
_TRIO = ("trio._tests.pytest_plugin",)
_REDIS = ("pytest_asyncio.plugin", "pytest_timeout")
_AIOHTTP = ("aiohttp.pytest_plugin", "pytest_mock", "pytest_timeout")
_HTTPCORE = ("anyio.pytest_plugin", "pytest_trio.plugin")
_IMPORTLIB = "--import-mode=importlib"
_SQLALCHEMY_POOLS = ("sqlalchemy.pool.base:_ConnectionRecord",)
_ASYNCPG_POOLS = ("asyncpg.pool:Pool", "asyncpg.pool:PoolConnectionHolder")
_REDIS_POOLS = ("redis.connection:ConnectionPool", "redis.asyncio.connection:ConnectionPool")

LIBRARIES: dict[str, Library] = {
    "anyio.test_synchronization": Library("anyio", ("tests/test_synchronization.py",), _TESTS, _ANYIO),
    "anyio.test_to_thread": Library("anyio", ("tests/test_to_thread.py",), _TESTS, _ANYIO),
    "anyio.streams.test_memory": Library("anyio", ("tests/streams/test_memory.py",), _TESTS, _ANYIO),
    "trio.test_sync": Library("trio", ("--pyargs", "trio._tests.test_sync"), plugins=_TRIO),
    "trio.test_channel": Library("trio", ("--pyargs", "trio._tests.test_channel"), plugins=_TRIO),
    "trio.test_parking_lot": Library(
        "trio", ("--pyargs", "trio._core._tests.test_parking_lot"), plugins=_TRIO
    ),
    "sqlalchemy.test_pool": Library(
        "sqlalchemy", ("test/engine/test_pool.py",), _SQLALCHEMY, places=_SQLALCHEMY_POOLS
    ),
    "sqlalchemy.test_concurrency": Library(
        "sqlalchemy", ("test/base/test_concurrency.py",), _SQLALCHEMY, places=_SQLALCHEMY_POOLS
    ),
    "sqlalchemy.test_reconnect": Library(
        "sqlalchemy", ("test/engine/test_reconnect.py",), _SQLALCHEMY, places=_SQLALCHEMY_POOLS
    ),
    "sqlalchemy.asyncio.test_engine": Library(
        "sqlalchemy",
        ("--dburi", "postgresql+asyncpg://{address}", "test/ext/asyncio/test_engine.py"),
        _SQLALCHEMY,
        server="postgres",
        places=(*_SQLALCHEMY_POOLS, *_ASYNCPG_POOLS),
    ),
    "asyncpg.test_pool": Library(
        "asyncpg", (_IMPORTLIB, "tests/test_pool.py"), _TESTS, server="postgres", places=_ASYNCPG_POOLS
    ),
    "asyncpg.test_pool_on_uvloop": Library(
        "asyncpg",
        (_IMPORTLIB, "tests/test_pool.py"),
        _TESTS,
        server="postgres",
        variables={"USE_UVLOOP": "1"},
        places=_ASYNCPG_POOLS,
    ),
    "aiohttp.test_connector": Library(
        "aiohttp",
        ("tests/test_connector.py",),
        _TESTS,
        _AIOHTTP,
        places=("aiohttp.connector:BaseConnector", "aiohttp.connector:Connection"),
    ),
    "aiohttp.test_web_app": Library(
        "aiohttp",
        ("tests/test_web_app.py",),
        _TESTS,
        _AIOHTTP,
        places=("aiohttp.web_app:Application",),
    ),
    "httpcore.test_connection_pool": Library(
        "httpcore",
        ("tests/_async/test_connection_pool.py", "tests/_sync/test_connection_pool.py"),
        _TESTS,
        _HTTPCORE,
        places=(
            "httpcore._async.connection_pool:AsyncConnectionPool",
            "httpcore._sync.connection_pool:PoolRequest",
        ),
    ),
    "redis.test_connection_pool": Library(
        "redis",
        ("--redis-url", "redis://{address}", "tests/test_connection_pool.py"),
        _TESTS,
        _REDIS,
        server="redis",
        places=_REDIS_POOLS,
    ),
    "redis.asyncio.test_connection_pool": Library(
        "redis",
        ("--redis-url", "redis://{address}", "tests/test_asyncio/test_connection_pool.py"),
        _TESTS,
        _REDIS,
        server="redis",
        places=_REDIS_POOLS,
    ),
}
# What is in the way of the plugins that a library's tests are written for, or of the stacks of a hang.
_ALWAYS = ("-q", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:faulthandler")


class Workshop:
    """Has what the tests of libraries need: their sources, words for pytest, a server."""

    def __init__(self, python: str, environ: Mapping[str, str]) -> None:
        """Work for an interpreter; sources are kept in the cache that the environment names."""
        self._python = python
        self._cache = cache_folder(environ)
        self._versions = {name.lower(): version for name, version in installed_versions(python).items()}

    def release(self, module: str) -> str:
        """Return the library and its version."""
        name = LIBRARIES[module].distribution
        return f"{name} {self._versions[name]}"

    def why_not(self, module: str) -> str:
        """Return why the tests cannot be run here; "" if they can, and then their sources are there."""
        library = LIBRARIES[module]
        wanted = [
            library.distribution,
            *(name.partition(".")[0].replace("_", "-") for name in library.plugins),
        ]
        if missing := [name for name in wanted if name not in self._versions]:
            return f"{' and '.join(missing)} not installed"
        try:
            source = self._source(library)
        except UpstreamError as error:
            return str(error)
        if absent := [
            word for word in library.tests if word.endswith(".py") and not (source / word).exists()
        ]:
            return f"{self.release(module)} has no {' and '.join(absent)}"
        return servers.why_not(library.server)

    @contextmanager
    def prepared(self, module: str, folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Lay out in its folder what a run needs, and have a server for it.

        Yields:
            The words for pytest, and variables of the environment.
        """
        library = LIBRARIES[module]
        for name in library.source:
            whole, copy = self._source(library) / name, folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if whole.is_dir():
                shutil.copytree(whole, copy)
            else:
                shutil.copyfile(whole, copy)
        # Ids of tests are relative to the root: the same in each run.
        root = [str(folder)] if library.source else [str(Path(self._python).parents[1]), "-c", os.devnull]
        plugins = [word for name in library.plugins for word in ("-p", name)]
        with servers.running(library.server) as (address, variables):
            tests = [word.format(address=address) for word in library.tests]
            yield (
                [*_ALWAYS, "--rootdir", *root, *plugins, *tests],
                {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **library.variables, **variables},
            )

    def _source(self, library: Library) -> Path:
        if not library.source:
            return Path()
        name = library.distribution
        return source_of(self._python, name, self._versions[name], self._cache)


def modules_of(name: str) -> list[str]:
    """Return the modules of a library."""
    return [module for module in LIBRARIES if module.startswith(f"{name}.")]
