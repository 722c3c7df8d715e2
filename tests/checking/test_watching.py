"""The checks without pytest: native and pure, each loop, and nothing of them left behind."""

from __future__ import annotations

import asyncio
import time

import pytest

from otel_concurrency.checking.watching import LoopChecks
from otel_concurrency.probes.watch import make_watch
from tests.conftest import LoopFactory


def found_in(loop_factory: LoopFactory, main: object, *, native: bool) -> list[str]:
    checks = LoopChecks(0.1, native=native)
    checks.install()
    try:
        checks.begin()
        loop = loop_factory()
        try:
            loop.run_until_complete(main)  # type: ignore[arg-type]
        finally:
            loop.close()
        return [problem.check for problem in checks.end()]
    finally:
        checks.remove()


async def block() -> None:
    time.sleep(0.8)


async def behave() -> None:
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(20)))


@pytest.mark.parametrize("native", [True, False])
def test_who_blocks_the_loop_is_found(
    native: bool, loop_factory: LoopFactory, request: pytest.FixtureRequest
) -> None:
    sees = native and make_watch().sees_stalls
    if request.node.callspec.params["loop_factory"] == "uvloop" and not sees:
        pytest.skip("without the C extension nobody sees inside of libuv")
    assert found_in(loop_factory, block(), native=native) == ["blocked_loop"]


@pytest.mark.parametrize("native", [True, False])
def test_who_behaves_is_not(native: bool, loop_factory: LoopFactory) -> None:
    assert "leaked_task" not in found_in(loop_factory, behave(), native=native)


def test_what_was_alive_before_is_no_leak(loop_factory: LoopFactory) -> None:
    checks = LoopChecks(30.0)
    checks.install()
    loop = loop_factory()
    try:
        loop.run_until_complete(behave())
        server = loop.create_task(asyncio.sleep(3600), name="server")
        checks.begin()
        loop.run_until_complete(behave())
        assert checks.end() == []
        leak = loop.create_task(asyncio.sleep(3600), name="leak")
        loop.run_until_complete(behave())
        assert [problem.check for problem in checks.end()] == ["leaked_task"]
        server.cancel()
        leak.cancel()
        loop.run_until_complete(asyncio.gather(server, leak, return_exceptions=True))
        assert checks.end() == []
    finally:
        loop.close()
        checks.remove()
