"""What all tests share: the event loops to run on, and the check that every patch of ours was taken back."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.postgres_server import Postgres

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

WITH_UVLOOP = pytest.param(
    "uvloop", marks=pytest.mark.skipif(sys.platform == "win32", reason="no uvloop on Windows")
)
WITH_EAGER_TASKS = pytest.param(
    "eager", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with CPython 3.12")
)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("scenario") and "scenario" not in item.config.option.markexpr:
        pytest.skip("wants a CPU for itself: make test ARGS='-m scenario'")


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _loop_factory(kind: str) -> LoopFactory:
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return _eager_loop if kind == "eager" else asyncio.new_event_loop


@pytest.fixture(params=["asyncio", WITH_UVLOOP, WITH_EAGER_TASKS])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """Makes loops of each kind: asyncio's, uvloop's, and asyncio's with the eager task factory."""
    return _loop_factory(request.param)


@pytest.fixture(params=["asyncio", WITH_UVLOOP])
def lazy_loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """Makes loops that start a task only after create_task has returned."""
    return _loop_factory(request.param)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, one for all tests; skips where there is none."""
    from tests.postgres_server import running_postgres

    with running_postgres() as server:
        yield server


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Keeps what is there already out of collections, for tests that collect often."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def originals() -> Iterator[None]:
    """Fails a test that leaves a patch of ours on the event loop classes."""
    before = {name: vars(asyncio.BaseEventLoop)[name] for name in ("create_task", "call_exception_handler")}
    yield
    after = {name: vars(asyncio.BaseEventLoop)[name] for name in before}
    assert after == before
