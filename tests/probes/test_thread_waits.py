"""What threads wait for of each other: real ones that do a known thing, and those that wait for nobody."""

from __future__ import annotations

import multiprocessing.pool
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

import pytest

from otel_concurrency.probes.thread_frames import thread_frames
from otel_concurrency.probes.thread_states import ThreadSampler
from otel_concurrency.probes.thread_waits import waits_for

Start = Callable[[Callable[[], object]], threading.Thread]


class Ends:
    """All that threads wait for, and how it comes to its end."""

    def __init__(self) -> None:
        self.event, self.condition, self.semaphore = (
            threading.Event(),
            threading.Condition(),
            threading.Semaphore(0),
        )
        self.barrier, self.lock = threading.Barrier(2), threading.Lock()
        self.empty: queue.Queue[int] = queue.Queue()
        self.full: queue.Queue[int] = queue.LifoQueue(1)
        self.future: Future[int] = Future()
        self.result = multiprocessing.pool.ApplyResult(_NoPool(), None, None)  # type: ignore[call-arg, arg-type, var-annotated]
        self.full.put(0)
        self.lock.acquire()
        self.timer = threading.Timer(1000, int)

    def end(self) -> None:
        self.event.set()
        with self.condition:
            self.condition.notify_all()
        self.semaphore.release(10)
        self.barrier.abort()
        self.empty.put(1)
        self.full.get()
        self.full.task_done()
        self.future.set_result(1)
        self.result._set(0, (True, 1))  # type: ignore[attr-defined]
        self.lock.release()
        self.timer.cancel()


class _NoPool:
    def __init__(self) -> None:
        self._cache: dict[int, Any] = {}


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def start(ends: Ends) -> Iterator[Start]:
    threads: list[threading.Thread] = []

    def start(target: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=target))
        threads[-1].start()
        return threads[-1]

    yield start
    ends.end()
    for thread in threads:
        thread.join()


def held(condition: threading.Condition) -> None:
    with condition:
        condition.wait_for(lambda: True)
        condition.wait()


def through_a_barrier(barrier: threading.Barrier) -> None:
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


WAITING: dict[str, tuple[str | None, Callable[[Ends], object]]] = {
    "condition": ("condition", lambda ends: held(ends.condition)),
    "event": ("event", lambda ends: ends.event.wait()),
    "event with a limit": ("event", lambda ends: ends.event.wait(1000)),
    "semaphore": ("semaphore", lambda ends: ends.semaphore.acquire()),
    "barrier": ("barrier", lambda ends: through_a_barrier(ends.barrier)),
    "get": ("queue_get", lambda ends: ends.empty.get()),
    "put": ("queue_put", lambda ends: ends.full.put(1)),
    "join of a queue": ("queue_join", lambda ends: ends.full.join()),
    "result": ("future", lambda ends: ends.future.result()),
    "exception": ("future", lambda ends: ends.future.exception()),
    "wait": ("future", lambda ends: wait([ends.future])),
    "as_completed": ("future", lambda ends: list(as_completed([ends.future]))),
    "result of a pool": ("future", lambda ends: ends.result.get()),
    "lock": (None, lambda ends: ends.lock.acquire()),
    "sleep": (None, lambda ends: time.sleep(0.2)),
}


def until(tell: Callable[[], Any], expected: object) -> Any:
    """Ask until all is as expected, or a generous time is over; a busy machine starts threads late."""
    deadline = time.monotonic() + 30
    while (told := tell()) != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    return told


@pytest.mark.parametrize("name", WAITING)
def test_each_wait_has_its_type(name: str, ends: Ends, start: Start) -> None:
    kind, target = WAITING[name]
    begun = threading.Event()

    def run() -> None:
        begun.set()
        target(ends)

    thread = start(run)
    begun.wait()
    assert until(lambda: waits_for(thread_frames().get(thread.ident or 0)), kind) == kind


def test_who_waits_for_a_thread_waits_for_its_end(ends: Ends, start: Start) -> None:
    thread = start(start(ends.event.wait).join)
    assert until(lambda: waits_for(thread_frames().get(thread.ident or 0)), "thread_join") == "thread_join"


def test_who_wants_the_lock_of_a_condition_waits_for_the_condition(ends: Ends, start: Start) -> None:
    def take() -> None:
        with ends.condition:
            pass

    with ends.condition:
        thread = start(take)
        assert until(lambda: waits_for(thread_frames().get(thread.ident or 0)), "condition") == "condition"


def test_a_sample_counts_them_and_leaves_out_those_that_wait_for_nobody(ends: Ends, start: Start) -> None:
    """A timer, and the workers of pools that have nothing to do; one of them waits for another's result."""
    sampler = ThreadSampler()
    before = dict(sampler.sample().waiting)
    ends.timer.start()
    numbers: Any = multiprocessing.Queue()
    with ThreadPoolExecutor(3) as pool, multiprocessing.pool.ThreadPool(2) as other:
        assert list(pool.map(int, range(3))) == other.map(int, range(3)) == [0, 1, 2]
        numbers.put(1)
        assert numbers.get() == 1
        pool.submit(ends.future.result)
        for target in (ends.event.wait, ends.event.wait, ends.empty.get):
            start(target)
        added = {"future": 1, "event": 2, "queue_get": 1}
        expected = {kind: before.get(kind, 0) + added.get(kind, 0) for kind in {*before, *added}}
        assert until(lambda: dict(sampler.sample().waiting), expected) == expected
        ends.future.set_result(1)
        ends.future = Future()
    numbers.close()
    numbers.join_thread()


def test_without_frames_nothing_is_told(monkeypatch: pytest.MonkeyPatch, ends: Ends, start: Start) -> None:
    """So it is in a process of several interpreters, and without a GIL."""
    monkeypatch.setattr("otel_concurrency.probes.thread_states.thread_frames", dict)
    start(ends.event.wait)
    assert ThreadSampler().sample().waiting == {}


def test_where_states_are_not_told_frames_are(ends: Ends, start: Start, tmp_path: Any) -> None:
    sampler = ThreadSampler(str(tmp_path))
    before = dict(sampler.sample().waiting)
    start(ends.event.wait)
    expected = before | {"event": before.get("event", 0) + 1}
    assert until(lambda: dict(sampler.sample().waiting), expected) == expected
