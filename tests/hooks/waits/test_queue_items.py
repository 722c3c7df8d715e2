"""What is brought along with the items of queues."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks.waits.queue_items import QueueItemHook

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Carrier:
    """Brings along what it is given, and keeps what came."""

    def __init__(self) -> None:
        self.note: Any = None
        self.came: list[Any] = []

    def sent(self) -> Any:
        return self.note

    def received(self, brought: Any) -> None:
        self.came.append(brought)


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    carrier = Carrier()
    hook = QueueItemHook(carrier)
    hook.install()
    yield carrier
    hook.remove()


def run(loop_factory: LoopFactory, scenario: Callable[[], Any]) -> None:
    loop = loop_factory()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


ORDERS = {"Queue": [30, 10, 20], "LifoQueue": [20, 10, 30], "PriorityQueue": [10, 20, 30]}


@pytest.mark.parametrize("kind", ORDERS)
def test_asyncio_in_whatever_order(carrier: Carrier, loop_factory: LoopFactory, kind: str) -> None:
    async def scenario() -> None:
        items: asyncio.Queue[int] = getattr(asyncio, kind)(3)
        for item in (30, 10):
            carrier.note = f"of {item}"
            await items.put(item)
        carrier.note = "of 20"
        items.put_nowait(20)
        with pytest.raises(asyncio.QueueFull):
            items.put_nowait(40)
        assert [await items.get(), items.get_nowait(), await items.get()] == ORDERS[kind]
        with pytest.raises(asyncio.QueueEmpty):
            items.get_nowait()

    run(loop_factory, scenario)
    assert carrier.came == [f"of {item}" for item in ORDERS[kind]]


@pytest.mark.parametrize("kind", ORDERS)
def test_threads_in_whatever_order(carrier: Carrier, kind: str) -> None:
    items: queue.Queue[int] = getattr(queue, kind)(3)
    for item in (30, 10, 20):
        carrier.note = f"of {item}"
        items.put(item)
    with pytest.raises(queue.Full):
        items.put(40, timeout=0.001)
    with pytest.raises(queue.Full):
        items.put_nowait(40)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(items.get(timeout=5) for _ in range(3)))
    thread.start()
    thread.join()
    with pytest.raises(queue.Empty):
        items.get(block=False)
    assert taken == ORDERS[kind]
    assert carrier.came == [f"of {item}" for item in ORDERS[kind]]


def test_one_object_several_times(carrier: Carrier) -> None:
    items: queue.Queue[None] = queue.Queue()
    for note in ("first", None, "third"):
        carrier.note = note
        items.put(None)
    for _ in range(3):
        items.get()
    assert carrier.came == ["first", "third"]


def test_who_put_it_before_us_brings_nothing(carrier: Carrier) -> None:
    items: queue.Queue[int] = queue.Queue()
    items.put(1)
    carrier.note = "of 2"
    items.put(2)
    assert (items.get(), carrier.came, items.get(), carrier.came) == (1, ["of 2"], 2, ["of 2"])


def test_a_put_that_waits_and_is_cancelled_leaves_nothing(
    carrier: Carrier, loop_factory: LoopFactory
) -> None:
    item = object()

    async def scenario() -> None:
        items: asyncio.Queue[object] = asyncio.Queue(1)
        items.put_nowait(1)
        carrier.note = "cancelled"
        waiting = asyncio.ensure_future(items.put(item))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        items.get_nowait()
        carrier.note = "put"
        items.put_nowait(item)
        assert items.get_nowait() is item

    run(loop_factory, scenario)
    assert carrier.came == ["put"]


def test_it_looks_as_before_and_is_put_back() -> None:
    places = [(asyncio.Queue, "put_nowait"), (asyncio.Queue, "get_nowait")]
    places += [(queue.Queue, "put"), (queue.Queue, "get")]  # type: ignore[list-item]
    before = [vars(owner)[name] for owner, name in places]
    hook = QueueItemHook(Carrier())
    hook.install()
    assert [inspect.signature(vars(owner)[name]) for owner, name in places] == [
        inspect.signature(each) for each in before
    ]
    hook.remove()
    assert [vars(owner)[name] for owner, name in places] == before
