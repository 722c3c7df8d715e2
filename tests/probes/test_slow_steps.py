"""Steps that take long leave a note with who they were, until somebody asks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.pure import PureTaskProbe
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
ORIGIN: contextvars.ContextVar[str] = contextvars.ContextVar("ORIGIN")
MS = 1_000_000


async def slow() -> None:
    ORIGIN.set("slow's")
    time.sleep(0.03)
    await asyncio.sleep(0)


async def quick() -> None:
    await asyncio.sleep(0)


async def both() -> None:
    await asyncio.gather(*(asyncio.ensure_future(each()) for each in (quick, slow, quick)))


def test_a_slow_step_is_noted_once_and_a_quick_one_never(lazy_loop_factory: LoopFactory) -> None:
    probe = make_task_probe(origin=ORIGIN)
    if isinstance(probe, PureTaskProbe):
        assert (probe.slow_steps(), probe.step_counts()) == ([], {})
        pytest.skip("steps are not seen here")
    hook = TaskHook(probe)
    hook.install()
    try:
        run(lazy_loop_factory, both())
        assert probe.slow_steps() == []  # nobody has asked for notes
        probe.note_slow_steps(20 * MS)
        began_ns = time.monotonic_ns()
        run(lazy_loop_factory, both())
    finally:
        hook.remove()
    [step] = probe.slow_steps()
    assert (step.function, step.origin, step.thread_ident) == (
        f"{__name__}.slow",
        "slow's",
        threading.get_ident(),
    )
    assert 30 * MS <= step.busy_ns <= step.ended_ns - began_ns
    assert step.cpu_ns >= 0
    assert probe.slow_steps() == []
    counts = probe.step_counts()
    assert (counts[f"{__name__}.slow"], counts[f"{__name__}.quick"]) == (4, 8)


def test_notes_are_bounded_and_a_reset_forgets_them(lazy_loop_factory: LoopFactory) -> None:
    probe = make_task_probe()
    if isinstance(probe, PureTaskProbe):
        pytest.skip("steps are not seen here")
    probe.note_slow_steps(1)
    hook = TaskHook(probe)
    hook.install()

    async def many() -> None:
        for _ in range(200):
            await asyncio.ensure_future(quick())

    try:
        run(lazy_loop_factory, many())
        assert len(probe.slow_steps()) == 64
        run(lazy_loop_factory, many())
        probe.reset()
        assert probe.slow_steps() == []
    finally:
        hook.remove()
