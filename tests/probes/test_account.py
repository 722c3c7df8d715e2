"""Accounts of requests by themselves; with spans, tests/instrumentors/test_request_times.py."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator

import pytest

from otel_concurrency.hooks.tasks.tasks import TaskHook
from otel_concurrency.probes.account import EXECUTOR, HTTP_POOL, LOCK, WAITED_FOR, Account, AccountRead
from otel_concurrency.probes.choice import make_task_probe
from otel_concurrency.probes.tasks import TaskProbe
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
MANY = 500


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> Iterator[TaskProbe]:
    if request.param:
        pytest.importorskip("otel_concurrency.probes._native", reason="not built here", exc_type=ImportError)
    yield from _hooked(request.param)


@pytest.fixture
def native() -> Iterator[TaskProbe]:
    pytest.importorskip("otel_concurrency.probes._native", reason="not built here", exc_type=ImportError)
    yield from _hooked(True)


def _hooked(native: bool) -> Iterator[TaskProbe]:
    probe = make_task_probe(native=native)
    hook = TaskHook(probe)
    hook.install()
    yield probe
    hook.remove()


def read(account: Account) -> AccountRead:
    return AccountRead(*account.read())


def spin(seconds: float = 0.002) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_outside_of_a_task_only_what_is_told_counts(probe: TaskProbe) -> None:
    account, outer = probe.new_account(), probe.new_account()
    outer.begin()
    account.begin(outer)
    account.add_task()
    account.add_wait(EXECUTOR, 70)
    account.add_wait(EXECUTOR, 5)
    account.add_wait(HTTP_POOL, 30)
    account.end()
    account.add_task()
    account.add_wait(EXECUTOR, 1_000)
    account.add_wait(LOCK, 2_000)
    outer.end()
    assert read(account) == (1, None, None, 0, ((2, 75), (0, 0), (0, 0), (1, 30)))
    assert read(outer) == (2, None, None, 0, ((3, 1_075), (1, 2_000), (0, 0), (1, 30)))


def test_what_is_no_account_is_none_around(probe: TaskProbe) -> None:
    for nonsense in (None, 7, object(), probe):
        account = probe.new_account()
        account.begin(nonsense)
        account.add_task()
        account.end()
        assert read(account).tasks == 1


def test_an_account_around_itself_ends(probe: TaskProbe) -> None:
    account = probe.new_account()
    account.begin(account)
    account.add_task()
    assert read(account).tasks == 1


def test_one_that_never_ends_goes_with_its_task(native: TaskProbe, loop_factory: LoopFactory) -> None:
    kept: list[Account] = []

    async def forgets() -> None:
        for _ in range(MANY):
            kept.append(native.new_account())
            kept[-1].begin()
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(forgets() for _ in range(3)))

    run(loop_factory, main())
    assert all((read(account).busy_ns or 0) > 0 for account in kept)
    kept[0].end()
    kept.clear()
    gc.collect()


def test_many_side_by_side(native: TaskProbe, loop_factory: LoopFactory) -> None:
    """The table grows, and what is taken out of it leaves no hole in the way of another."""
    took: dict[int, int] = {}

    async def request(number: int) -> None:
        account = native.new_account()
        account.begin()
        began = time.perf_counter_ns()
        spin(0.0001)
        inside = time.perf_counter_ns() - began
        await asyncio.sleep(0 if number % 3 else 0.001)
        account.end()
        busy_ns = read(account).busy_ns
        assert busy_ns is not None
        took[number] = busy_ns - inside

    async def main() -> None:
        await asyncio.gather(*(request(number) for number in range(MANY)))

    run(loop_factory, main())
    assert len(took) == MANY
    assert min(took.values()) >= 0


def test_after_a_reset_tasks_count_no_more(native: TaskProbe, loop_factory: LoopFactory) -> None:
    async def main() -> None:
        account = native.new_account()
        account.begin()
        spin()
        native.reset()
        await asyncio.sleep(0)
        spin()
        account.end()
        assert read(account).busy_ns == 0
        later = native.new_account()
        later.begin()
        later.end()

    run(loop_factory, main())


def test_a_second_begin_is_refused(native: TaskProbe) -> None:
    account = native.new_account()
    account.begin()
    with pytest.raises(TypeError):
        account.begin()


def test_nonsense_is_refused(native: TaskProbe) -> None:
    account = native.new_account()
    account.begin()
    for nonsense in ((-1, 5), (len(WAITED_FOR), 5)):
        with pytest.raises(ValueError, match="0 to 3"):
            account.add_wait(*nonsense)
    for arguments in ((1,), (1, "long"), ("lock", 1), (1, 2, 3)):
        with pytest.raises(TypeError):
            account.add_wait(*arguments)
    assert read(account).waited == ((0, 0),) * 4
