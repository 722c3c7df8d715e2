"""The limiter: who gets in, who waits, who goes on; in tasks, in threads, and in both at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from otel_concurrency import AdaptiveLimiter, LimitReached
from otel_concurrency.diagnosis.board import BOARD
from otel_concurrency.hooks import adaptive_limiter
from otel_concurrency.probes.concurrency_limit import SAMPLES
from tests.conftest import LoopFactory

DEADLINE_S = 30


def run(loop_factory: LoopFactory, main: object) -> None:
    loop = loop_factory()
    try:
        loop.run_until_complete(main)  # type: ignore[arg-type]
    finally:
        loop.close()


def fixed(limit: int, **options: object) -> AdaptiveLimiter:
    return AdaptiveLimiter("test", initial=limit, minimum=limit, maximum=limit, **options)  # type: ignore[arg-type]


def test_tasks_beyond_the_limit_wait_their_turn(loop_factory: LoopFactory) -> None:
    limiter, order, most = fixed(2), [], []

    async def call(number: int) -> None:
        async with limiter:
            order.append(number)
            most.append(limiter.in_use)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*map(call, range(6)))

    run(loop_factory, main())
    assert (order, max(most)) == ([0, 1, 2, 3, 4, 5], 2)
    assert (limiter.in_use, limiter.waiting) == (0, 0)
    assert repr(limiter) == "<AdaptiveLimiter test [0 of 2, 0 waiting]>"


def test_beyond_those_who_may_wait_one_is_refused() -> None:
    async def main() -> None:
        limiter = fixed(1, max_waiting=1)
        async with limiter:
            waiting = asyncio.ensure_future(limiter.__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(LimitReached) as refused:
                await limiter.__aenter__()
            waiting.cancel()
        assert str(refused.value) == "test: 1 calls under way (limit 1), 1 waiting (limit 1)"
        assert limiter.rejected == 1

    asyncio.run(main())


@pytest.mark.parametrize("when", ["waiting", "let in"])
def test_a_cancelled_wait_leaves_no_place_taken(when: str, loop_factory: LoopFactory) -> None:
    limiter = fixed(1)

    async def call() -> None:
        async with limiter:
            pass

    async def main() -> None:
        await limiter.__aenter__()
        first, second = asyncio.ensure_future(call()), asyncio.ensure_future(call())
        await asyncio.sleep(0)
        if when == "let in":  # it has a place, and does not know yet
            await limiter.__aexit__(None, None, None)
        first.cancel()
        if when == "waiting":
            await limiter.__aexit__(None, None, None)
        await asyncio.wait_for(second, DEADLINE_S)
        assert first.cancelled() or first.done()

    run(loop_factory, main())
    assert (limiter.in_use, limiter.waiting) == (0, 0)


def test_threads_and_loops_share_one() -> None:
    limiter, seen, lock = fixed(3), [], threading.Lock()

    def note() -> None:
        with lock:
            seen.append(limiter.in_use)

    def call() -> None:
        for _ in range(100):
            with limiter:
                note()

    async def task() -> None:
        for _ in range(50):
            async with limiter:
                note()
                await asyncio.sleep(0)

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(5)))

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(call) for _ in range(4)] + [pool.submit(asyncio.run, tasks()) for _ in range(2)]
        for each in work:
            each.result(DEADLINE_S)
    assert len(seen) == 4 * 100 + 2 * 5 * 50
    assert max(seen) <= 3
    assert (limiter.in_use, limiter.waiting) == (0, 0)


def test_a_loop_that_is_gone_keeps_no_place() -> None:
    limiter = fixed(1)
    limiter.__enter__()
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        async with limiter:
            pass

    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    limiter.__exit__(None, None, None)
    assert (limiter.in_use, limiter.waiting) == (0, 0)
    task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.fixture
def hindered() -> Iterator[None]:
    before = BOARD.now
    BOARD.now = SimpleNamespace(open=(SimpleNamespace(rule="cpu_starvation"),))  # type: ignore[assignment]
    yield
    BOARD.now = before


class Ticks:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def crowd(limiter: AdaptiveLimiter, ticks: Ticks, error: BaseException | None = None) -> None:
    """Let calls that use up the limit take longer and longer."""
    for n in range(20 * SAMPLES):
        entered = 0
        while limiter.in_use < limiter.limit:
            limiter.__enter__()
            entered += 1
        ticks.now_ns += 10_000_000 + n * 1_000_000
        for _ in range(entered):
            limiter.__exit__(type(error) if error else None, error, None)


@pytest.mark.parametrize("error", [None, TimeoutError(), asyncio.TimeoutError()], ids=repr)
def test_calls_that_take_longer_and_longer_lower_it(error: BaseException | None) -> None:
    ticks = Ticks()
    limiter = AdaptiveLimiter(initial=20, clock=ticks)
    crowd(limiter, ticks, error)
    assert limiter.limit < 20


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()], ids=repr)
def test_calls_that_fail_say_nothing(error: BaseException) -> None:
    ticks = Ticks()
    limiter = AdaptiveLimiter(initial=20, clock=ticks)
    crowd(limiter, ticks, error)
    assert (limiter.limit, limiter.in_use) == (20, 0)


@pytest.mark.usefixtures("hindered")
def test_it_stays_while_this_process_has_no_cpu() -> None:
    ticks = Ticks()
    limiter = AdaptiveLimiter(initial=20, clock=ticks)
    crowd(limiter, ticks)
    assert limiter.limit == 20


def test_nested_limiters_time_their_own() -> None:
    ticks = Ticks()
    outer, inner = AdaptiveLimiter(initial=9, clock=ticks), AdaptiveLimiter(initial=9, clock=ticks)
    for _ in range(SAMPLES):
        with outer:
            ticks.now_ns += 5_000_000
            with inner:
                ticks.now_ns += 1_000_000
    assert outer._advice.unhurried_mean_ns == pytest.approx(6_000_000)
    assert inner._advice.unhurried_mean_ns == pytest.approx(1_000_000)
    assert adaptive_limiter._entered.get() == ()
