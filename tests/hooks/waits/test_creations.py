"""Where objects are made: the line of the program that asked for them."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterator

import pytest

from otel_concurrency.hooks.waits.creations import CreationHook
from otel_concurrency.hooks.weak_ids import WeakIds


@pytest.fixture
def hook() -> Iterator[CreationHook]:
    hook = CreationHook(asyncio.Queue, asyncio.Condition)
    hook.install()
    yield hook
    hook.remove()


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_the_line_that_asked_for_it(hook: CreationHook) -> None:
    here, queue = line(), asyncio.Queue[int]()
    assert hook.site(queue) == f"{__name__}:{here}"
    assert [(it is queue, site) for it, site in hook.alive()] == [(True, f"{__name__}:{here}")]


def test_constructors_of_subclasses_are_seen_through(hook: CreationHook) -> None:
    class Own(asyncio.PriorityQueue[int]):
        def __init__(self) -> None:
            super().__init__(7)

    class Service:
        def __init__(self) -> None:
            self.here, self.queue = line(), Own()

    service = Service()
    assert hook.site(service.queue) == f"{__name__}:{service.here}"
    assert service.queue.maxsize == 7


@pytest.mark.skipif(not hasattr(asyncio, "Barrier"), reason="barriers came with CPython 3.11")
def test_what_asyncio_makes_is_asked_for_by_the_program(hook: CreationHook) -> None:
    here, barrier = line(), asyncio.Barrier(2)
    assert [site for _, site in hook.alive()] == [f"{__name__}:{here}"]
    assert barrier.parties == 2


def test_what_is_gone_is_forgotten(hook: CreationHook) -> None:
    queues = [asyncio.Queue[int]() for _ in range(5)]
    assert len(list(hook.alive())) == 5
    del queues[1:]
    gc.collect()
    assert [it for it, _ in hook.alive()] == queues


def test_an_error_stays_one(hook: CreationHook) -> None:
    with pytest.raises(TypeError):
        asyncio.Queue(maxsize=1, nonsense=True)  # type: ignore[call-arg]
    assert list(hook.alive()) == []


def test_it_looks_as_before_and_is_put_back() -> None:
    original = vars(asyncio.Queue)["__init__"]
    hook = CreationHook(asyncio.Queue)
    hook.install()
    assert inspect.signature(asyncio.Queue) == inspect.signature(asyncio.Queue.__init__).replace(
        parameters=list(inspect.signature(original).parameters.values())[1:]
    )
    queue = asyncio.Queue[int]()
    hook.remove()
    assert vars(asyncio.Queue)["__init__"] is original
    assert hook.site(queue) is None


def test_objects_that_compare_equal_are_told_apart() -> None:
    class Same:
        def __eq__(self, other: object) -> bool:
            return True

    one, other = Same(), Same()
    known: WeakIds[int] = WeakIds()
    known.put(one, 1)
    known.put(other, 2)
    known.put(other, 3)
    assert (known.get(one), known.get(other), known.get(Same())) == (1, 3, None)
    del one
    assert [value for _, value in known.items()] == [3]
    assert len(known) == 1
