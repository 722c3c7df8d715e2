"""The extension at the end of an interpreter, and before its beginning: nothing freed is looked at again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

_native = pytest.importorskip("otel_concurrency.probes._native")

USED_AND_LET_GO = """
import asyncio
from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import make_task_probe, make_work_probe

hook = TaskHook(make_task_probe())
hook.install()

async def main():
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(5)))

asyncio.run(main())
hook.remove()
pool = make_work_probe().pool("pool", "thread")
pool.wrap(print)("ran")
del hook, pool
"""


@pytest.mark.parametrize("allocator", ["debug", "malloc"])
def test_the_module_may_go_after_its_last_probe(allocator: str) -> None:
    """The debug allocator fills what is freed, so a look at it is a crash rather than luck."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", USED_AND_LET_GO],
        capture_output=True,
        text=True,
        env={
            "PYTHONMALLOC": allocator,
            "MALLOC_PERTURB_": "90",
            "PYTHONPATH": ":".join(filter(None, sys.path)),
        },
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def create_task(probe: Any) -> None:
    loop = asyncio.new_event_loop()
    coroutine = asyncio.sleep(0)
    try:
        probe.create_task(asyncio.BaseEventLoop.create_task, loop, coroutine)
    finally:
        coroutine.close()
        loop.close()


USES: list[tuple[str, Callable[[Any], object]]] = [
    ("TaskProbe", create_task),
    ("WorkProbe", lambda probe: probe.pool("pool", "thread")),
]


@pytest.mark.parametrize(("name", "use"), USES, ids=[name for name, _ in USES])
def test_what_was_not_initialised_refuses(name: str, use: Callable[[Any], object]) -> None:
    kind = getattr(_native, name)
    with pytest.raises((RuntimeError, TypeError)):
        use(kind.__new__(kind))


@pytest.mark.parametrize("name", ["TaskProbe", "WorkProbe"])
def test_limits_must_be_given(name: str) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        getattr(_native, name)(asyncio.CancelledError)
