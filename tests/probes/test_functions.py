"""The names under which work items count."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from concurrent.futures import process
from typing import Any

import pytest

from otel_concurrency.probes.functions import function_name


def plain() -> None:
    pass


class Worker:
    def method(self) -> None:
        pass

    @classmethod
    def of_class(cls) -> None:
        pass

    def __call__(self) -> None:
        pass


class Odd:
    """Answers everything, so nothing that it says of itself is a name."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)

    def __call__(self) -> None:
        pass


@functools.wraps(plain)
def decorated() -> None:
    pass


context = contextvars.copy_context()


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (plain, (), f"{__name__}.plain"),
        (Worker().method, (), f"{__name__}.Worker.method"),
        (Worker.of_class, (), f"{__name__}.Worker.of_class"),
        (Worker(), (), f"{__name__}.Worker"),
        (Worker, (), f"{__name__}.Worker"),
        (decorated, (), f"{__name__}.plain"),
        (functools.partial(plain), (), f"{__name__}.plain"),
        (functools.partial(functools.partial(Worker().method, 1), 2), (), f"{__name__}.Worker.method"),
        (context.run, (plain,), f"{__name__}.plain"),
        (functools.partial(context.run, plain), (), f"{__name__}.plain"),
        (functools.partial(context.run, functools.partial(plain, 1)), (2,), f"{__name__}.plain"),
        (functools.partial(process._process_chunk, plain), ((1,),), f"{__name__}.plain"),
        (process._process_chunk, (plain, (1,)), f"{__name__}.plain"),
        (time.sleep, (1,), "time.sleep"),
        ([].append, (1,), "list.append"),
        (str.upper, ("a",), "str.upper"),
        (int, ("1",), "int"),
    ],
)
def test_what_is_really_run_gives_the_name(function: Any, args: tuple[Any, ...], name: str) -> None:
    assert function_name(function, args) == name


def test_an_object_that_answers_everything_is_not_asked() -> None:
    assert function_name(Odd()) == f"{__name__}.Odd"


def test_asyncio_to_thread_is_seen_through() -> None:
    submitted: list[tuple[Any, ...]] = []

    class Loop(asyncio.SelectorEventLoop):
        def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
            submitted.append((func, args))
            return super().run_in_executor(executor, func, *args)

    loop = Loop()
    try:
        loop.run_until_complete(asyncio.to_thread(plain))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert [function_name(*each) for each in submitted] == [f"{__name__}.plain"] * len(submitted)
    assert function_name(*submitted[0]) == f"{__name__}.plain"
