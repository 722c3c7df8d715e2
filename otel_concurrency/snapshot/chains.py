"""The awaits inside of a task: who awaits whom, from the task's coroutine to what it stands in.

Walked by `cr_await`, `gi_yieldfrom` and `ag_await`, which CPython keeps safe to ask of a coroutine that
another thread runs. Nothing that a program has written itself is called: who answers these in Python is not
asked.
"""

from __future__ import annotations

import gc
import sys
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, NamedTuple

from otel_concurrency.snapshot.live_tasks import FramePlace

MAX_DEPTH = 200
"""Awaits followed; what is further in is not seen."""

Function = tuple[str, str]
"""Module and qualified name."""

_HAS_QUALNAME = sys.version_info >= (3, 11)
_HOLDS_LOCALS = sys.version_info >= (3, 11)  # a coroutine does so itself, and needs no frame object for that
_SLOTS = (type(CoroutineType.cr_await), type(CoroutineType.cr_frame))  # what is written in C answers by these
_NATIVE = "otel_concurrency.probes._native"
_UNKNOWN: Function = ("", "")


class _Ways(NamedTuple):
    """How a type of awaitables is asked: for what it awaits, its frame, and its code."""

    awaited: str
    frame: str
    code: str
    running: str


_COROUTINE = _Ways("cr_await", "cr_frame", "cr_code", "cr_running")
_GENERATOR = _Ways("gi_yieldfrom", "gi_frame", "gi_code", "gi_running")
_ASYNC_GENERATOR = _Ways("ag_await", "ag_frame", "ag_code", "ag_running")
_KNOWN: dict[type, _Ways] = {
    CoroutineType: _COROUTINE,
    GeneratorType: _GENERATOR,
    AsyncGeneratorType: _ASYNC_GENERATOR,
}
# What stands between: `__anext__()` of an asynchronous generator, `__await__()` of a coroutine.
_BETWEEN = frozenset(
    (
        "async_generator_asend",
        "async_generator_athrow",
        "anext_awaitable",
        "coroutine_wrapper",
    )
)


class Chains:
    """Walks chains for one snapshot, and knows the functions that it has met."""

    def __init__(self) -> None:
        self._ways: dict[type, _Ways | None] = dict(_KNOWN)
        self._places: dict[tuple[Function, str, int], FramePlace] = {}
        self._functions: dict[int, tuple[CodeType, Function]] = {}  # the code keeps its id

    def chain(self, coroutine: Any) -> list[Any]:
        """Return what awaits, the outermost first: coroutines, generators, asynchronous generators."""
        found: list[Any] = []
        each = coroutine
        for _ in range(MAX_DEPTH):
            if each is None:
                break
            kind = type(each)
            ways = self._ways[kind] if kind in self._ways else self._learn(kind)
            if ways is not None:
                found.append(each)
                each = getattr(each, ways.awaited, None)
            elif kind.__name__ in _BETWEEN:
                each = self._inside(each)
            else:
                break
        return found

    def function(self, awaitable: Any) -> Function:
        """Return the function that one of a chain runs."""
        kind = type(awaitable)
        ways = self._ways[kind] if kind in self._ways else self._learn(kind)
        if ways is None:
            return _UNKNOWN
        code = getattr(awaitable, ways.code, None)
        known = self._functions.get(id(code))
        if known is not None:
            return known[1]
        if not isinstance(code, CodeType):  # Cython's may have none
            return "", _text(getattr(awaitable, "__qualname__", ""))
        frame = getattr(awaitable, ways.frame, None)
        function = (_module(frame), _qualname(code, awaitable))
        if frame is not None:
            self._functions[id(code)] = (code, function)
        return function

    def is_running(self, awaitable: Any) -> bool:
        """Whether a thread is executing it now."""
        kind = type(awaitable)
        ways = self._ways[kind] if kind in self._ways else self._learn(kind)
        return ways is not None and bool(getattr(awaitable, ways.running, False))

    def place(self, awaitable: Any) -> FramePlace:
        """Return where one of a chain stands."""
        line = getattr(self.frame(awaitable), "f_lineno", None) or 0
        key = (self.function(awaitable), self.file(awaitable), line)
        known = self._places.get(key)
        if known is None:
            known = self._places[key] = FramePlace(joined(key[0]), *key[1:])
        return known

    def file(self, awaitable: Any) -> str:
        """Return where the code of one of a chain is."""
        ways = self._ways.get(type(awaitable)) or _COROUTINE
        code = getattr(awaitable, ways.code, None)
        return code.co_filename if isinstance(code, CodeType) else ""

    def frame(self, awaitable: Any) -> FrameType | None:
        """Return the frame of one of a chain, to be compared and let go of."""
        ways = self._ways.get(type(awaitable))
        frame = None if ways is None else getattr(awaitable, ways.frame, None)
        return frame if isinstance(frame, FrameType) else None

    def held(self, awaitable: Any) -> list[Any]:
        """Return what the variables of one of a chain hold, and what it has begun to use.

        Not by `f_locals`: until CPython 3.12 what is in there stays as long as the frame.
        """
        return gc.get_referents(self.holder(awaitable))

    def holder(self, awaitable: Any) -> Any:
        """Return the object that holds the variables of one of a chain."""
        if _HOLDS_LOCALS:
            return _unwrapped(awaitable)
        return self.frame(awaitable)

    def _learn(self, kind: type) -> _Ways | None:
        """Tell how to ask a type seen for the first time, if that is safe."""
        ways = None
        if kind.__module__ == _NATIVE:  # our proxy: it asks the coroutine
            ways = _COROUTINE
        else:
            for each in (_COROUTINE, _GENERATOR):
                if all(isinstance(_of_type(kind, name), _SLOTS) for name in each[:3]):
                    ways = each
                    break
        self._ways[kind] = ways
        return ways

    def _inside(self, between: Any) -> Any:
        for each in gc.get_referents(between):
            if type(each) in self._ways or type(each).__name__ in _BETWEEN:
                return each
        return None


def joined(function: Function) -> str:
    """Return a function as `module.qualname`."""
    module, qualname = function
    return f"{module}.{qualname}" if module else qualname


def _unwrapped(awaitable: Any) -> Any:
    """Return the coroutine that a proxy of ours stands for."""
    if type(awaitable).__module__ == _NATIVE:
        for each in gc.get_referents(awaitable):
            if type(each) is CoroutineType:
                return each
    return awaitable


def _of_type(kind: type, name: str) -> Any:
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def _module(frame: Any) -> str:
    return _text(frame.f_globals.get("__name__")) if isinstance(frame, FrameType) else ""


def _qualname(code: CodeType, awaitable: Any) -> str:
    return code.co_qualname if _HAS_QUALNAME else _text(getattr(awaitable, "__qualname__", code.co_name))  # type: ignore[attr-defined,unused-ignore]


def _text(value: object) -> str:
    return value if type(value) is str else ""
