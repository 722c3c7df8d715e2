"""Work items leave nothing behind, however they end; and a storm of all that can happen to them adds up."""

from __future__ import annotations

import contextvars
import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.crossing import Again
from otel_concurrency.probes.work import PoolProbe, WorkProbe

ROUNDS = 200

origin: contextvars.ContextVar[object] = contextvars.ContextVar("origin")


def passes(*args: Any, **kwargs: Any) -> object:
    return args, kwargs


def fails(*args: Any) -> None:
    raise ValueError(args)


def finished(pool: PoolProbe) -> None:
    pool.wrap(passes, contextvars.copy_context())(1, [], key={})
    pool.wrap(passes)()


def failed(pool: PoolProbe) -> None:
    for context in (contextvars.copy_context(), None):
        try:
            pool.wrap(fails, context)([])
        except ValueError:
            pass


def let_go(pool: PoolProbe) -> None:
    pool.wrap(passes, contextvars.copy_context())


def refused(pool: PoolProbe) -> None:
    pool.wrap(passes).reject()


def entered_already(pool: PoolProbe) -> None:
    context = contextvars.copy_context()
    try:
        context.run(pool.wrap(passes, context))
    except RuntimeError:
        pass


def in_a_cycle(pool: PoolProbe) -> None:
    held: list[Any] = []
    context = contextvars.copy_context()
    context.run(origin.set, held)
    held.append(pool.wrap(lambda: held, context))
    held[0]()
    held.append(pool.wrap(lambda: held, context))


def of_every_kind(pool: PoolProbe) -> None:
    for function in (
        passes,
        Caller(),
        Caller().method,
        int,
        "".join,
        lambda *_: None,
        contextvars.Context().run,
    ):
        try:
            pool.wrap(function)((), ())  # type: ignore[operator]
        except TypeError:
            pass


def made_anew(pool: PoolProbe) -> None:
    """A function whose names are new texts each time."""
    names: dict[str, Any] = {}
    exec("def anew(): pass", names)
    names["anew"].__qualname__ = "".join(["an", "ew"])
    pool.wrap(names["anew"])()


def meddled_with(pool: PoolProbe) -> None:
    work: Any = pool.wrap(passes)
    for meddle in (
        lambda: (repr(work), hash(work), work.__name__, work.__wrapped__, dir(work), weakref.ref(work)),
        lambda: work.no_such_attribute,
        lambda: work._otel_concurrency_pool.name,
        lambda: (work(), work()),
        lambda: pool.wrap(),  # type: ignore[call-arg]
        lambda: pool.wrap(passes, 1),  # type: ignore[arg-type]
        lambda: pool.done(1, queue_ns=1, run_ns=1),  # type: ignore[arg-type]
        lambda: pool.unretrieved(1),  # type: ignore[arg-type]
    ):
        try:
            meddle()
        except (AttributeError, TypeError):
            pass


def told(pool: PoolProbe) -> None:
    pool.submitted()
    pool.rejected()
    pool.abandoned(2)
    pool.crashed("".join(["cra", "sh"]))
    pool.unretrieved("".join(["Er", "ror"]))
    pool.done(
        "".join(["f", "g"]), queue_ns=1, run_ns=2, transfer_ns=3, error_type="E", origin={"a": object()}
    )


def carrier() -> dict[str, str]:
    return {"key": "".join(["va", "lue"])}


def sent(pool: PoolProbe) -> None:
    for timing in (None, (1, 2)):
        pool.send(passes, (1, []), carrier).done(4, timing, None)
        pool.send("".join, ([],), dict).done(4, timing, "".join(["Er", "ror"]))
    for end in ("reject", "cancel", "abandon"):
        getattr(pool.send(passes, (), dict), end)()
    pool.send(passes, ([],), dict)
    pool.send(pool.send(passes, ([],), dict), (), dict)  # type: ignore[arg-type]
    held: list[Any] = []
    held.append(pool.send(lambda: held, (held,), dict))
    context = contextvars.copy_context()
    context.run(origin.set, held)
    context.run(pool.send, passes, (), carrier)


def sent_and_meddled_with(pool: PoolProbe) -> None:
    item: Any = pool.send(passes, (1,), dict)
    for meddle in (
        lambda: (repr(item), hash(item), item.parcel, item.function, item(2), item.__reduce__()),
        lambda: item.no_such_attribute,
        lambda: item._otel_concurrency_pool.name,
        lambda: pool.send(passes, (), None),  # type: ignore[arg-type]
        lambda: pool.send(passes, (), list),  # type: ignore[arg-type]
        lambda: pool.send(passes, (), lambda: 1 / 0),  # type: ignore[arg-type,return-value]
        lambda: pool.send(passes, None, dict),  # type: ignore[arg-type]
        lambda: item.done(1, (1,), None),
        lambda: item.done(1, (1, None), None),
        lambda: item.done(None, None, None),
        lambda: item.done(1, (1, 1), 1),
    ):
        try:
            meddle()
        except (AttributeError, TypeError, ValueError, ZeroDivisionError):
            pass


class Call:
    def __init__(self, work_id: int, fn: Any, args: Any, kwargs: Any) -> None:
        self.work_id, self.fn, self.args, self.kwargs = work_id, fn, args, kwargs


class Result:
    def __init__(self, work_id: int, exception: Any = None) -> None:
        self.work_id, self.exception = work_id, exception


def crossed(pool: PoolProbe) -> None:
    """Over and back again, with all that can go wrong in a worker."""
    native = type(pool).__module__.endswith("_native")
    held: list[Any] = []
    for observer in (None, passes, lambda *_: held, lambda *_: lambda *_: passes, fails):
        crossing: Any = make_work_probe(native=native).crossing(observer, lambda error: None)
        held.append(crossing)
        unwrap, _ = crossing.unwrap(Call.__init__)
        arrive, _ = crossing.arrive(None)
        answer, _ = crossing.answer(Result.__init__)
        take, off = crossing.take(passes)
        send_back, _ = crossing.send_back(fails)
        call, arrived, result = Call.__new__(Call), Call.__new__(Call), Result.__new__(Result)
        sent = pool.send(passes, ([],), carrier)
        unwrap(call, 7, sent, ([],), {})
        for state in (dict(vars(call)), {**vars(call), "_otel_concurrency": None}, {}):
            arrive(arrived, state)
            for failure in (None, Result(1), type("Failure", (), {"exc": KeyError(), "tb": "…"})()):
                answer(result, 7, exception=failure)
            result.exception = ValueError()
            manager: Any = type("Manager", (), {"pending_work_items": {7: type("Work", (), {"fn": sent})}})
            take(manager, result)
            for station, wrong in ((take, (1, result)), (arrive, (1,)), (send_back, (7,))):
                try:
                    station(*wrong)
                except (AttributeError, TypeError, ValueError):
                    pass
        crossing.finish()
        off()
        take.__get__(manager)(result)


class Ended:
    def __call__(self, *args: Any) -> None:
        pass


def begun_alike(pool: PoolProbe) -> None:
    """In a worker, as the item before, or nearly so."""
    native = type(pool).__module__.endswith("_native")
    held: list[Any] = []

    def begin(**other: Any) -> None:
        says = Again(carrier(), (({"name": held}, "name", held),), {}, "span", Ended, {"held": held})
        says = says._replace(**other)
        crossing = make_work_probe(native=native).crossing(
            lambda *_: (origin.set({}), passes, says), lambda error: None, context_var=origin
        )
        held.append(crossing)
        for number in range(4):
            crossing.begin(number, (carrier(), 1, "p"), "process", passes, ([],))
            crossing.end(number, ValueError(), "…")

    for other in ({}, {"key": []}, {"carrier": {}}, {"unchanged": (({}, "name", held),)}, {"ended": int}):
        contextvars.copy_context().run(begin, **other)


class Caller:
    def __call__(self, *args: Any) -> None:
        pass

    def method(self, *args: Any) -> None:
        pass


STORIES: list[Callable[[PoolProbe], None]] = [
    finished, failed, let_go, refused, entered_already, in_a_cycle, of_every_kind, made_anew,
    meddled_with, told, sent, sent_and_meddled_with, crossed, begun_alike,
]  # fmt: skip


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_no_block_is_left(native: bool, story: Callable[[PoolProbe], None]) -> None:
    probe = make_work_probe(native=native, origin=origin)
    pool = probe.pool("p", "thread")

    def play() -> int:
        for _ in range(ROUNDS):
            story(pool)
        probe.read()
        gc.collect()
        return sys.getallocatedblocks()

    gc.disable()
    try:
        play()
        readings = [play() for _ in range(5)]
    finally:
        gc.enable()
    assert min(after - before for before, after in pairwise(readings)) < ROUNDS // 4


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_resets_leave_no_block(native: bool) -> None:
    probe = make_work_probe(native=native, origin=origin)
    pool = probe.pool("p", "thread")

    def play() -> int:
        for _ in range(50):
            for story in STORIES:
                story(pool)
            waiting = pool.wrap(passes)
            probe.reset()
            waiting()
        gc.collect()
        return sys.getallocatedblocks()

    play()
    readings = [play() for _ in range(5)]
    assert min(after - before for before, after in pairwise(readings)) < 25  # a leak of one block a round: 50


@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_a_probe_goes_with_its_last_work(native: bool) -> None:
    probe = make_work_probe(native=native, origin=origin)
    inner = weakref.ref(probe)
    pool = probe.pool("p", "thread")
    work = pool.wrap(passes)
    del probe, pool
    assert work(1) == ((1,), {})
    del work
    gc.collect()
    assert inner() is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_a_storm_adds_up(native: bool, seed: int) -> None:
    """Threads, collections, resets, readers and meddlers at once; at the end every number fits."""
    probe: WorkProbe = make_work_probe(native=native, origin=origin, max_error_types=3)
    over = threading.Event()
    pools = [probe.pool(f"p{number}", "thread") for number in range(3)]
    errors: list[BaseException] = []

    def submits(seed: int) -> None:
        rng = random.Random(seed)
        kept: list[Any] = []
        try:
            for _ in range(1500):
                rng.choice(STORIES)(rng.choice(pools))
                if rng.random() < 0.2:
                    kept.append(rng.choice(pools).wrap(passes, contextvars.copy_context()))
                if kept and rng.random() < 0.2:
                    kept.pop(rng.randrange(len(kept)))()
                if rng.random() < 0.01:
                    gc.collect(0)
        except BaseException as error:
            errors.append(error)

    def reads() -> None:
        while not over.wait(0.001):
            probe.read()

    def resets() -> None:
        while not over.wait(0.01):
            probe.reset()

    threads = [threading.Thread(target=submits, args=(seed * 10 + number,)) for number in range(3)]
    watchers = [threading.Thread(target=reads)] + ([threading.Thread(target=resets)] if seed % 2 else [])
    for thread in (*watchers, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    for thread in watchers:
        thread.join()
    probe.read()  # exemplars keep what was current, work that nobody ran included
    gc.collect()
    assert errors == []
    for row in probe.read():
        outcomes = row.finished + row.cancelled + sum(row.failed.values()) + row.rejected
        assert all(count >= 0 for count in row.failed.values())
        assert len(row.failed) <= 4
        if not seed % 2:  # `told` says 2 submitted, 1 failed, 1 rejected, 2 abandoned
            told_count = row.crashes.get("crash", row.crashes.get("_other", 0))
            assert row.submitted == outcomes + row.abandoned - 2 * told_count
            assert row.abandoned >= 2 * told_count
