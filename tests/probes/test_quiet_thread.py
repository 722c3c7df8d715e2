"""A quiet thread does what it is told, ends when that does, and is not found by who counts threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from otel_concurrency.probes import quiet_thread
from otel_concurrency.probes.quiet_thread import QuietThread
from otel_concurrency.probes.thread_states import ThreadSampler
from otel_concurrency.probes.watch import make_watch

Make = Callable[[Callable[[], object]], QuietThread]


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param and not make_watch().sees_stalls:
        pytest.skip("no native probes here")
    return lambda target: QuietThread(target, name="otel-concurrency-test", native=request.param)


def test_it_runs_and_is_gone_after_join(make: Make) -> None:
    began, is_over = threading.Event(), threading.Event()
    before = quiet_thread.native_ids

    def target() -> None:
        began.set()
        is_over.wait(30)

    thread = make(target)
    thread.start()
    assert thread.native_id in quiet_thread.native_ids  # it has begun already
    assert began.wait(30)
    assert quiet_thread.native_ids == before | {thread.native_id}
    thread.join(0.01)
    assert thread.native_id in quiet_thread.native_ids
    is_over.set()
    thread.join(30)
    assert quiet_thread.native_ids == before


def test_none_of_its_time_is_the_programs(make: Make) -> None:
    began, is_over = threading.Event(), threading.Event()
    sampler = ThreadSampler()
    before = sampler.sample()

    def target() -> None:
        began.set()
        while not is_over.is_set():
            sum(range(1_000))

    thread = make(target)
    thread.start()
    assert began.wait(30)
    is_over.wait(0.1)
    after = sampler.sample()
    is_over.set()
    thread.join(30)
    assert {*after.cpu_ns} == {*before.cpu_ns}
    assert sum(after.states.values()) == sum(before.states.values())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_raises_is_over(make: Make) -> None:
    def target() -> None:
        raise LookupError("ours")

    thread = make(target)
    thread.start()
    thread.join(30)
    assert thread.native_id not in quiet_thread.native_ids


def test_where_there_is_none_to_be_had_it_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    thread = make(lambda: None)
    if thread._start is not None:
        thread._start = refuse
    with pytest.raises(RuntimeError):
        thread.start()
    thread.join(1)
