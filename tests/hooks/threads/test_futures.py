"""The future hook: callbacks in their adder's context, and failures that nobody looked at."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_EXCEPTION,
    Future,
    InvalidStateError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from contextvars import ContextVar
from typing import Any

import pytest

from otel_concurrency.hooks.processes.process_pools import ProcessPoolHook
from otel_concurrency.hooks.threads.futures import FutureHook
from otel_concurrency.hooks.threads.thread_pools import ThreadPoolHook
from otel_concurrency.probes.choice import make_work_probe
from otel_concurrency.probes.work import WorkProbe
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
variable: ContextVar[str] = ContextVar("variable", default="nothing")


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def probe(request: pytest.FixtureRequest) -> Iterator[WorkProbe]:
    probe = make_work_probe(native=request.param)
    hooks = (FutureHook(), ThreadPoolHook(probe))
    for hook in hooks:
        hook.install()
    yield probe
    for hook in reversed(hooks):
        hook.remove()


def unseen(probe: WorkProbe) -> dict[str, int]:
    gc.collect()
    return {error: count for row in probe.read() for error, count in row.unretrieved.items()}


class LookedForError(Exception):
    pass


NAME = f"{__name__}.LookedForError"


def fails() -> None:
    raise LookedForError


def failed() -> Future[None]:
    """A future that has failed, and that nobody waited for."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fails)


def test_a_callback_runs_where_it_was_added(probe: WorkProbe) -> None:
    seen: list[str] = []
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(go.wait, 30)
        for name in ("one", "other"):
            token = variable.set(name)
            future.add_done_callback(lambda _: seen.append(variable.get()))
            variable.reset(token)
        go.set()
    assert seen == ["one", "other"]


def test_a_callback_that_is_called_at_once_runs_in_the_caller_s_own_context(probe: WorkProbe) -> None:
    future: Future[int] = Future()
    future.set_result(1)
    future.add_done_callback(lambda _: variable.set("changed"))
    assert variable.get() == "changed"
    variable.set("nothing")


def test_a_callback_that_fails_is_logged_as_always(
    probe: WorkProbe, caplog: pytest.LogCaptureFixture
) -> None:
    future: Future[int] = Future()
    calls: list[Any] = []

    def callback(done: Future[int]) -> None:
        calls.append(done)
        raise LookedForError

    future.add_done_callback(callback)
    future.set_result(1)
    assert calls == [future]
    assert "exception calling callback for <Future at" in caplog.text


@pytest.mark.parametrize(
    "look",
    [
        lambda future: _refused(future.result),
        lambda future: future.exception(),
        lambda future: future.add_done_callback(lambda _: None),
        lambda future: (
            wait([future], return_when=FIRST_EXCEPTION) and [f.exception() for f in as_completed([future])]
        ),
        lambda future: _refused(lambda: asyncio.run(_awaited(future))),
    ],
    ids=["result", "exception", "callback", "as_completed", "asyncio"],
)
def test_looked_at_afterwards_it_is_seen(probe: WorkProbe, look: Callable[[Any], Any]) -> None:
    future = failed()
    look(future)
    assert type(future) is Future
    del future
    assert unseen(probe) == {}


def _refused(look: Callable[[], Any]) -> None:
    with pytest.raises(LookedForError):
        look()


async def _awaited(future: Future[None]) -> None:
    await asyncio.wrap_future(future)


@pytest.mark.parametrize("times", [1, 3])
def test_looked_at_by_nobody_it_is_unseen(probe: WorkProbe, times: int) -> None:
    for _ in range(times):
        failed()
    assert unseen(probe) == {NAME: times}


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_process_pool_s_failure_is_unseen_too(probe: WorkProbe) -> None:
    hook = ProcessPoolHook(probe)
    hook.install()
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for _ in range(2):
                pool.submit(divmod, 1, 0)
            seen = pool.submit(divmod, 1, 0)
            with pytest.raises(ZeroDivisionError):
                seen.result()
            del seen
    finally:
        hook.remove()
    assert unseen(probe) == {"ZeroDivisionError": 2}


def test_waited_for_it_is_seen(probe: WorkProbe) -> None:
    """Whoever waits in `result()` is already past what we could replace."""
    go = threading.Event()
    errors: list[BaseException] = []

    def waits_and_fails() -> None:
        go.wait(30)
        raise LookedForError

    def looks(future: Future[None]) -> None:
        try:
            future.result(30)
        except LookedForError as error:
            errors.append(error)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(waits_and_fails)
        thread = threading.Thread(target=looks, args=(future,))
        thread.start()
        while not future._condition._waiters:  # type: ignore[attr-defined]
            pass
        go.set()
        thread.join()
    assert len(errors) == 1
    errors.clear()
    del future, thread
    assert unseen(probe) == {}


def test_asked_on_the_spot_it_is_seen(probe: WorkProbe) -> None:
    """The future has no other name than the one that the call gives it."""
    with ThreadPoolExecutor(1) as pool:
        for _ in range(200):
            with pytest.raises(LookedForError):
                pool.submit(fails).result()
    assert unseen(probe) == {}


def test_a_task_that_awaits_it_has_seen_it(probe: WorkProbe, loop_factory: LoopFactory) -> None:
    async def main() -> None:
        for _ in range(20):
            with pytest.raises(LookedForError):
                await asyncio.get_running_loop().run_in_executor(None, fails)

    run(loop_factory, main())
    assert unseen(probe) == {}


def test_meanwhile_it_looks_the_same(probe: WorkProbe) -> None:
    future = failed()
    assert isinstance(future, Future)
    assert repr(future).startswith("<Future at ")
    assert repr(future).endswith(" state=finished raised LookedForError>")
    assert (future.done(), future.running(), future.cancelled(), future.cancel()) == (
        True,
        False,
        False,
        False,
    )
    assert type(future).__name__ == "Future"
    assert future.result.__name__ == "result"
    with pytest.raises(InvalidStateError):
        future.set_result(None)
    assert type(future.exception()) is LookedForError


def test_no_cycle_keeps_it(probe: WorkProbe) -> None:
    gc.disable()
    try:
        future = failed()
        with pytest.raises(LookedForError):
            future.result()
        reference = weakref.ref(future)
        del future
        assert reference() is None
    finally:
        gc.enable()


def test_futures_of_nobody_s_pool_are_left_alone(probe: WorkProbe) -> None:
    future: Future[None] = Future()
    future.set_exception(LookedForError())
    assert type(future) is Future
    with pytest.raises(InvalidStateError):
        future.set_exception(LookedForError())


def test_removed_it_is_as_it_was() -> None:
    before = dict(vars(Future))
    hook = FutureHook()
    hook.install()
    hook.install()
    assert dict(vars(Future)) != before
    hook.remove()
    assert dict(vars(Future)) == before
