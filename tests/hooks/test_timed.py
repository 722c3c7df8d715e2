"""The decorator: whatever a function did without it, it does with it, whether anybody counts or not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import pickle
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from otel_concurrency.hooks import timed as decorating
from otel_concurrency.probes.function_times import FunctionTimes


@pytest.fixture(params=["counting", "off"])
def times(request: pytest.FixtureRequest) -> FunctionTimes:
    times = FunctionTimes()
    if request.param == "counting":
        times.start(lambda: None)
    return times


Decorate = Callable[[Any], Any]


@pytest.fixture(params=["bare", "timed"])
def decorate(request: pytest.FixtureRequest, times: FunctionTimes) -> Decorate:
    """Each test of behaviour holds of the function itself, too."""
    return (
        functools.partial(decorating.timed, times=times) if request.param == "timed" else lambda given: given
    )


def ended(times: FunctionTimes) -> dict[tuple[str, str | None], int]:
    """Count the calls by how they ended."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for row in times.read():
        counts[row.outcome, row.error_type] += row.durations.count
    return counts


def counted(times: FunctionTimes, expected: dict[tuple[str, str | None], int]) -> bool:
    return ended(times) == (expected if times.is_counting else {})


@decorating.timed
def at_the_top(number: int = 3) -> int:
    """Doubles."""
    return number * 2


class Shop:
    tax = 2

    @decorating.timed
    def total(self, price: int) -> int:
        return price * self.tax

    @decorating.timed
    async def check_out(self, price: int) -> int:
        await asyncio.sleep(0)
        return price * self.tax

    @decorating.timed
    @classmethod
    def rate(cls) -> int:
        return cls.tax

    @classmethod
    @decorating.timed
    def other_rate(cls) -> int:
        return cls.tax

    @decorating.timed
    @staticmethod
    def name() -> str:
        return "shop"


def test_methods_of_all_kinds() -> None:
    shop = Shop()
    assert (shop.total(4), Shop.total(shop, 4), asyncio.run(shop.check_out(3))) == (8, 8, 6)
    assert (Shop.rate(), shop.rate(), shop.other_rate(), Shop.name(), shop.name()) == (
        2,
        2,
        2,
        "shop",
        "shop",
    )


def test_it_looks_like_the_function() -> None:
    assert at_the_top.__name__ == at_the_top.__qualname__ == "at_the_top"
    assert (at_the_top.__doc__, at_the_top.__module__) == ("Doubles.", __name__)
    assert str(inspect.signature(at_the_top)) == "(number: 'int' = 3) -> 'int'"
    assert at_the_top.__wrapped__(4) == 8
    assert pickle.loads(pickle.dumps(at_the_top)) is at_the_top


def test_kinds_stay(decorate: Decorate) -> None:
    def function() -> None: ...
    async def coroutine() -> None: ...
    def generator() -> Iterator[int]:
        yield 1

    async def asyncgen() -> AsyncIterator[int]:
        yield 1

    checks = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    found = [
        [check(decorate(each)) for check in checks] for each in (function, coroutine, generator, asyncgen)
    ]
    assert found == [
        [False, False, False],
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert all(inspect.isfunction(decorate(each)) for each in (function, coroutine, generator, asyncgen))


def test_coroutines_bear_the_functions_name(decorate: Decorate) -> None:
    async def check_out() -> None: ...

    coroutine = decorate(check_out)()
    assert (coroutine.__name__, coroutine.__qualname__) == ("check_out", check_out.__qualname__)
    assert coroutine.cr_frame.f_globals["__name__"] == __name__
    assert coroutine.cr_code.co_name == "check_out"
    coroutine.close()


def test_two_modules_functions_of_one_name_have_code_that_differs(times: FunctionTimes) -> None:
    made = []
    for module in ("one", "two"):
        space: dict[str, Any] = {"__name__": module}
        exec("async def main(): ...", space)
        made.append(decorating.timed(space["main"], times=times).__code__)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [(Shop, "Shop is a class: decorate its methods"), (7, "timed is for functions, not for 7")],
)
def test_what_is_no_function_is_refused(given: object, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        decorating.timed(given)  # type: ignore[arg-type]


def test_partials_and_callable_objects(times: FunctionTimes) -> None:
    class Doubling:
        async def __call__(self, number: int) -> int:
            return number * 2

    assert decorating.timed(functools.partial(pow, 2), times=times)(3) == 8
    assert asyncio.run(decorating.timed(Doubling(), times=times)(3)) == 6
    names = {row.name for row in times.read()}
    assert names == ({"pow", f"{__name__}.{Doubling.__qualname__}"} if times.is_counting else set())


def test_a_failure_is_the_functions_own(times: FunctionTimes) -> None:
    def fail() -> None:
        raise KeyError("k")

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise KeyError("k")

    with pytest.raises(KeyError) as caught:
        decorating.timed(fail, times=times)()
    with pytest.raises(KeyError) as later:
        asyncio.run(decorating.timed(fail_later, times=times)())
    assert [frame.name for frame in traceback.extract_tb(caught.tb)][1:] == ["fail", "fail"]  # ours, and its
    assert [frame.name for frame in traceback.extract_tb(later.tb)][-2:] == ["fail_later", "fail_later"]
    assert (caught.value.__context__, later.value.__context__) == (None, None)
    assert counted(times, {("failed", "KeyError"): 2})


def test_a_cancellation_is_one(times: FunctionTimes) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> bool:
        task = asyncio.ensure_future(decorating.timed(wait, times=times)())
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(main())
    assert counted(times, {("cancelled", None): 1})


def test_a_suppressed_cancellation_stays_suppressed(times: FunctionTimes) -> None:
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "still here"

    async def main() -> str:
        task = asyncio.ensure_future(decorating.timed(stubborn, times=times)())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "still here"
    assert counted(times, {("finished", None): 1})


def test_a_coroutine_that_is_closed_is_no_failure(times: FunctionTimes) -> None:
    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    async def wait() -> None:
        await Pause()

    coroutine = decorating.timed(wait, times=times)()
    coroutine.send(None)
    coroutine.close()
    assert counted(times, {("closed", None): 1})


def test_a_generator_takes_and_gives_as_before(decorate: Decorate, times: FunctionTimes) -> None:
    def adding() -> Iterator[int]:
        total = 0
        while total < 10:
            try:
                total += yield total  # type: ignore[misc]
            except ValueError:
                total += 1
        return total  # type: ignore[return-value]

    running: Any = decorate(adding)()
    assert [next(running), running.send(4), running.throw(ValueError()), running.send(3)] == [0, 4, 5, 8]
    with pytest.raises(StopIteration) as stopped:
        running.send(2)
    assert stopped.value.value == 10


class Noted:
    """An asynchronous generator function that writes down what happens in it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def numbers(self, stubborn: bool = False) -> AsyncIterator[int]:
        number = 0
        while number < 3:
            try:
                sent = yield number
                self.seen.append(f"sent {sent}")
                number += 1 if sent is None else int(sent)  # type: ignore[redundant-expr]
            except ValueError as error:
                self.seen.append(f"thrown {error}")
                number += 1
            except GeneratorExit:
                self.seen.append("closed")
                if not stubborn:
                    raise
                yield -1
            await asyncio.sleep(0)
        if not self.seen:
            raise KeyError
        self.seen.append("end")


async def story_of_all(generator: Any) -> list[Any]:
    return [each async for each in generator]


async def story_of_sending(generator: Any) -> list[Any]:
    told = [await generator.__anext__(), await generator.asend(1), await generator.athrow(ValueError("v"))]
    await generator.aclose()
    return told


async def story_of_sending_to_the_end(generator: Any) -> list[Any]:
    told = [await generator.__anext__()]
    with pytest.raises(StopAsyncIteration):
        await generator.asend(9)
    with pytest.raises(StopAsyncIteration):
        await generator.__anext__()
    return told


async def story_of_failing(generator: Any) -> list[Any]:
    told = [await generator.__anext__()]
    with pytest.raises(ZeroDivisionError) as caught:
        await generator.athrow(ZeroDivisionError("z"))
    return [*told, str(caught.value), caught.value.__context__]


async def story_of_a_stop_thrown_in(generator: Any) -> list[Any]:
    told = [await generator.__anext__()]
    with pytest.raises(RuntimeError) as caught:
        await generator.athrow(StopAsyncIteration())
    return [*told, str(caught.value), type(caught.value.__cause__)]


async def story_of_closing(generator: Any) -> list[Any]:
    told = [await generator.__anext__()]
    await generator.aclose()
    await generator.aclose()
    with pytest.raises(StopAsyncIteration):
        await generator.__anext__()
    return told


async def story_of_closing_unbegun(generator: Any) -> list[Any]:
    await generator.aclose()
    return []


async def story_of_an_exit_thrown_in(generator: Any) -> list[Any]:
    told = [await generator.__anext__()]
    with pytest.raises(GeneratorExit):
        await generator.athrow(GeneratorExit())
    return told


async def story_of_breaking(generator: Any) -> list[Any]:
    async with contextlib.aclosing(generator):
        async for each in generator:
            return [each]
    return []


async def story_of_cancelling(generator: Any) -> list[Any]:
    told = []

    async def consume() -> None:
        async for each in generator:
            told.append(each)
            await asyncio.Event().wait()

    task = asyncio.ensure_future(consume())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await generator.aclose()
    return told


STORIES = {
    story_of_all: ("finished", None),
    story_of_sending: ("closed", None),
    story_of_sending_to_the_end: ("finished", None),
    story_of_failing: ("failed", "ZeroDivisionError"),
    story_of_a_stop_thrown_in: ("failed", "RuntimeError"),
    story_of_closing: ("closed", None),
    story_of_closing_unbegun: None,  # it never ran
    story_of_an_exit_thrown_in: ("closed", None),
    story_of_breaking: ("closed", None),
    story_of_cancelling: ("closed", None),
}


@pytest.mark.parametrize("story", STORIES)
def test_an_asynchronous_generator_behaves_as_before(story: Any, times: FunctionTimes) -> None:
    plain, other = Noted(), Noted()

    async def both() -> tuple[list[Any], list[Any]]:
        timed_one = decorating.timed(other.numbers, times=times)()
        return await story(plain.numbers()), await story(timed_one)

    expected, told = asyncio.run(both())
    assert told == expected
    assert other.seen == plain.seen
    outcome = STORIES[story]
    assert counted(times, {outcome: 1} if outcome else {})


def test_one_that_ignores_its_end_says_so_as_before(decorate: Decorate) -> None:
    async def main() -> str:
        generator = decorate(Noted().numbers)(stubborn=True)
        await generator.__anext__()
        with pytest.raises(RuntimeError) as caught:
            await generator.aclose()
        await story_of_all(generator)
        return str(caught.value)

    assert asyncio.run(main()) == "async generator ignored GeneratorExit"


def test_what_is_raised_later_has_no_context_of_what_was_thrown_in(decorate: Decorate) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        except ValueError:
            pass
        raise KeyError

    async def main() -> BaseException | None:
        generator = decorate(numbers)()
        await generator.__anext__()
        thrown = ValueError()
        with pytest.raises(KeyError) as caught:
            await generator.athrow(thrown)
        return caught.value.__context__

    assert asyncio.run(main()) is None


def test_durations_are_of_calls_that_ended(times: FunctionTimes) -> None:
    ticks = iter(range(0, 10_000, 100))
    row = times.function("f")
    wrapper = decorating._call(lambda: None, times, row, lambda: next(ticks))
    wrapper()
    wrapper()
    found = [(each.durations.count, each.durations.sum_ns) for each in times.read()]
    assert found == ([(2, 200)] if times.is_counting else [])
