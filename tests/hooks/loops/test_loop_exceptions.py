"""Reports to a loop's exception handler: told as before, and counted by what they are about."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.loops.loop_exceptions import LoopExceptionHook
from otel_concurrency.probes.event_counts import MAX_PENDING
from otel_concurrency.probes.loop_exceptions import LoopExceptions, what_about
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def counted() -> LoopExceptions:
    return LoopExceptions(lambda loop: (0, "selector"), max_error_types=2)


@pytest.fixture
def hook(counted: LoopExceptions) -> Iterator[LoopExceptionHook]:
    hook = LoopExceptionHook(counted.note)
    hook.install()
    yield hook
    hook.remove()


def counts(counted: LoopExceptions) -> dict[tuple[str, str], int]:
    return {key[2:]: count for key, count in counted.read().items()}


async def fails() -> None:
    raise ValueError


def test_what_asyncio_and_uvloop_report_is_told_apart(
    hook: LoopExceptionHook, counted: LoopExceptions, lazy_loop_factory: LoopFactory
) -> None:
    told: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        task = loop.create_task(fails())
        await asyncio.wait([task])
        future = loop.create_future()
        future.set_exception(KeyError())
        del task, future
        gc.collect()
        loop.call_soon(lambda: [].pop())  # type: ignore[func-returns-value]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loop.call_exception_handler({"message": "theirs"})

    run(lazy_loop_factory, main())
    assert counts(counted) == {
        ("task_never_retrieved", "ValueError"): 1,
        ("future_never_retrieved", "KeyError"): 1,
        ("callback", "_other"): 1,
        ("other", ""): 1,
    }
    assert len(told) == 4


def test_a_task_destroyed_while_pending(
    hook: LoopExceptionHook, counted: LoopExceptions, lazy_loop_factory: LoopFactory
) -> None:
    async def waits() -> None:
        await asyncio.Future()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        task = loop.create_task(waits())
        await asyncio.sleep(0)
        del task
        gc.collect()

    run(lazy_loop_factory, main())
    assert counts(counted) == {("task_destroyed_pending", ""): 1}


@pytest.mark.parametrize(
    ("context", "about"),
    [
        ({"message": "Future exception was never retrieved"}, "future_never_retrieved"),
        (
            {"message": "an error occurred during closing of asynchronous generator x", "asyncgen": 1},
            "asyncgen",
        ),
        ({"message": "socket.accept() out of system resource"}, "server"),
        ({"message": "Error on transport creation for incoming connection", "transport": 1}, "server"),
        ({"message": "Unhandled exception in client_connected_cb", "transport": 1}, "server"),
        ({"message": "Fatal read error on socket transport", "transport": 1}, "transport"),
        ({"message": "Exception in callback x()", "handle": 1}, "callback"),
        ({"message": None}, "other"),
        ({}, "other"),
    ],
)
def test_what_a_report_is_about(context: dict[str, object], about: str) -> None:
    assert what_about(context) == about


def test_what_is_no_report_at_all_is_other(counted: LoopExceptions) -> None:
    counted.note(object(), None)
    assert counts(counted) == {("other", ""): 1}
    assert counted.lost == 0


def test_removed_it_is_silent_and_the_original_raises_as_before(
    hook: LoopExceptionHook, counted: LoopExceptions
) -> None:
    loop = asyncio.new_event_loop()
    kept = loop.call_exception_handler
    loop.set_exception_handler(lambda loop, context: None)
    kept({"message": "one"})
    with pytest.raises(TypeError):
        kept()  # type: ignore[call-arg]
    hook.remove()
    kept({"message": "two"})
    loop.close()
    assert counts(counted) == {("other", ""): 1}


def test_two_hooks_stand_on_one_method(
    hook: LoopExceptionHook, counted: LoopExceptions, lazy_loop_factory: LoopFactory
) -> None:
    others = LoopExceptions(lambda loop: (0, "selector"))
    second = LoopExceptionHook(others.note)
    second.install()
    loop = lazy_loop_factory()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        loop.call_exception_handler({"message": "both"})
        second.remove()
        loop.call_exception_handler({"message": "the first"})
    finally:
        second.remove()
        loop.close()
    assert (counts(counted), counts(others)) == ({("other", ""): 2}, {("other", ""): 1})


def test_many_reports_from_many_threads_are_all_counted(counted: LoopExceptions) -> None:
    def report() -> None:
        for _ in range(MAX_PENDING):
            counted.note(None, {"message": "x", "exception": OSError()})

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(counted) == {("other", "OSError"): 4 * MAX_PENDING}
    counted.reset()
    assert counts(counted) == {}
