"""Under which name a work item counts: that of the function that somebody wrote, beneath what carries it."""

from __future__ import annotations

import contextvars
import functools
import types
from collections.abc import Callable
from typing import Any

MAX_LAYERS = 8
"""Layers looked beneath; what is deeper counts by the name found there."""

_STARS = ("mapstar", "starmapstar")

_NAMED = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    type,
)


def function_name(function: Callable[..., Any], args: tuple[Any, ...] = ()) -> str:
    """Return `module.qualname` of what a work item really runs.

    It sees through `functools.partial`, bound methods, `Context.run` (`asyncio.to_thread` submits
    `partial(context.run, function)`), and the chunks of process pools' `map`. An object with `__call__` goes
    by its type: its attributes are the application's own code.

    Args:
        function: What was submitted.
        args: Its positional arguments, for where the function is one of them.
    """
    return joined(*name_parts(function, args))


def joined(module: str | None, qualname: str) -> str:
    """Return the name that two parts make."""
    return f"{module}.{qualname}" if module else qualname


def name_parts(function: Any, args: tuple[Any, ...] = ()) -> tuple[str | None, str]:
    """Return the module, None where there is none to tell, and the qualified name."""
    for _ in range(MAX_LAYERS):
        kind = type(function)
        if kind is types.FunctionType:
            if args and function.__name__ == "_process_chunk" and _is_process_pools(function):
                function, args = args[0], ()
                continue
            if args and function.__name__ in _STARS and function.__module__ == "multiprocessing.pool":
                function, args = args[0][0], ()
                continue
            break
        if kind is types.MethodType:
            function = function.__func__
        elif isinstance(function, functools.partial):
            function, args = function.func, function.args + args
        elif args and kind is types.BuiltinFunctionType and _is_context_run(function):
            function, args = args[0], args[1:]
        else:
            break
    return _parts_of(function if isinstance(function, _NAMED) else type(function))


def _parts_of(named: object) -> tuple[str | None, str]:
    module, qualname = _text(named, "__module__"), _text(named, "__qualname__")
    return (module if module != "builtins" else None), qualname or type(named).__name__


def _text(named: object, attribute: str) -> str | None:
    value = getattr(named, attribute, None)
    return value if isinstance(value, str) and value else None


def _is_context_run(function: types.BuiltinFunctionType) -> bool:
    return type(function.__self__) is contextvars.Context and function.__name__ == "run"


def _is_process_pools(function: types.FunctionType) -> bool:
    return function.__module__ == "concurrent.futures.process"
