"""The decorator `otel_concurrency.timed`: a function that behaves as it did, with its calls timed.

What it returns is of the function's own kind: a coroutine function for a coroutine function, and so on. Its
code object is a copy of ours that bears the function's name, and its globals are the function's: what names
coroutines and frames after their code (our task metrics, `repr`, tracebacks, profilers) sees the function.
That is why the wrappers below use nothing global, not even built-in names.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from otel_concurrency.probes.function_times import FunctionTimes, default
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.histogram import MAX_PENDING

Function = Callable[..., Any]


def timed(function: Any, *, name: str | None = None, times: FunctionTimes = default) -> Any:
    """Return the function with its calls timed; see `otel_concurrency.timed`."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(timed(function.__func__, name=name, times=times))
    if isinstance(function, type):
        raise TypeError(f"timed is for functions; {function.__qualname__} is a class: decorate its methods")
    if not callable(function):
        raise TypeError(f"timed is for functions, not for {function!r}")
    row = times.function(name or function_name(function))
    wrapper = _maker(function)(function, times, row, perf_counter_ns)
    return _in_the_name_of(function, wrapper)


def _maker(function: Function) -> Callable[..., types.FunctionType]:
    called = function if inspect.isroutine(function) else type(function).__call__
    for is_kind, maker in (
        (inspect.iscoroutinefunction, _coroutine),
        (inspect.isasyncgenfunction, _async_generator),
        (inspect.isgeneratorfunction, _generator),
    ):
        if is_kind(function) or is_kind(called):
            return maker
    return _call


def _in_the_name_of(function: Function, wrapper: types.FunctionType) -> types.FunctionType:
    name = getattr(function, "__name__", None)
    space = getattr(inspect.unwrap(function), "__globals__", None)
    if isinstance(name, str) and isinstance(space, dict):
        code: Any = wrapper.__code__
        # Code is compared by value, and our task probe has a row for each: the module makes the difference.
        changed: dict[str, Any] = {"co_name": name, "co_consts": (*code.co_consts, space.get("__name__"))}
        if sys.version_info >= (3, 11):
            changed["co_qualname"] = getattr(function, "__qualname__", name)
        wrapper = types.FunctionType(code.replace(**changed), space, name, None, wrapper.__closure__)
    functools.update_wrapper(wrapper, function)
    return wrapper


def _call(
    function: Any, times: Any, row: Any, clock: Any, every: Any = BaseException, size: Any = len
) -> Any:
    limit = MAX_PENDING

    def call(*args: Any, **kwargs: Any) -> Any:
        if not times.is_counting:
            return function(*args, **kwargs)
        began_ns = clock()
        try:
            result = function(*args, **kwargs)
        except every as error:
            row.end(clock() - began_ns, error)
            raise
        ns = clock() - began_ns
        if ns > row.slow_ns or size(row.pending) >= limit:
            row.finish(ns)
        else:
            row.pending.append(ns)
        return result

    return call


def _coroutine(
    function: Any, times: Any, row: Any, clock: Any, every: Any = BaseException, size: Any = len
) -> Any:
    limit = MAX_PENDING

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        if not times.is_counting:
            return await function(*args, **kwargs)
        began_ns = clock()
        try:
            result = await function(*args, **kwargs)
        except every as error:
            row.end(clock() - began_ns, error)
            raise
        ns = clock() - began_ns
        if ns > row.slow_ns or size(row.pending) >= limit:
            row.finish(ns)
        else:
            row.pending.append(ns)
        return result

    return coroutine


def _generator(function: Any, times: Any, row: Any, clock: Any, every: Any = BaseException) -> Any:
    def generator(*args: Any, **kwargs: Any) -> Any:
        if not times.is_counting:
            return (yield from function(*args, **kwargs))
        began_ns = clock()
        try:
            result = yield from function(*args, **kwargs)
        except every as error:
            row.end(clock() - began_ns, error)
            raise
        row.finish(clock() - began_ns)
        return result

    return generator


def _async_generator(
    function: Any,
    times: Any,
    row: Any,
    clock: Any,
    every: Any = BaseException,
    at_end: Any = StopAsyncIteration,
) -> Any:
    async def generator(*args: Any, **kwargs: Any) -> Any:
        is_counting = times.is_counting
        began_ns = clock()
        inner = function(*args, **kwargs)
        sent = thrown = None
        try:
            while True:
                # Outside of any `except`: what the function raises has no context of ours.
                if thrown is None:
                    value = await inner.asend(sent)
                else:
                    error, thrown = thrown, None
                    try:
                        value = await inner.athrow(error)
                    finally:
                        error = None
                try:
                    sent = yield value
                except every as given:  # GeneratorExit too: the function decides what comes of it
                    sent, thrown = None, given
        except at_end:
            if is_counting:
                row.finish(clock() - began_ns)
        except every as error:
            if is_counting:
                row.end(clock() - began_ns, error)
            raise
        finally:
            inner = sent = value = None

    return generator
