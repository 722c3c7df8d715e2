"""What a thread is doing, read from its frames at once; no frame is kept.

A look reads no file: who does lets go of the GIL, and the thread goes on.
"""

from __future__ import annotations

import linecache
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.thread_frames import thread_frames

MAX_FRAMES = 8
"""Innermost frames told."""

_MAX_DEPTH = 200
_LIBRARY_FOLDERS = (
    str(Path(__file__).parents[1]),
    *(path for key in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(key))),
)
_PACKAGES = ("site-packages", "dist-packages")
_LOOPS = ("anyio", "asyncio", "trio", "uvloop", "winloop")
_OURS = "otel_concurrency"
_OUR_LOOP = "otel_concurrency.hooks.loops.event_loops"  # it stands between uvloop and its caller
_CALL = re.compile(r"([A-Za-z_][\w.]*)\(")


@dataclass(frozen=True, slots=True)
class CallSite:
    """Where a frame calls a C function, whose name only its source tells.

    Attributes:
        code: Of the frame.
        instruction: Which of its instructions runs.
        line: Of the source.
        names: What global names stand for.
        builtins: The same for those that are not there.
    """

    code: CodeType
    instruction: int
    line: int
    names: dict[str, Any]
    builtins: dict[str, Any]

    @property
    def is_at_hand(self) -> bool:
        """Whether the source has been read before."""
        return len(linecache.cache.get(self.code.co_filename, ())) > 1

    def name(self) -> str:
        """Name the function, as far as that can be told; reads the source if it has to."""
        line = linecache.getline(self.code.co_filename, self.line)
        names = _CALL.findall(self._segment(line))
        return self._resolved(names[0]) if names else ""

    def _segment(self, line: str) -> str:
        """Cut the expression that is being evaluated out of its line, where the code tells (CPython 3.11)."""
        positions = getattr(self.code, "co_positions", None)
        if positions is None or self.instruction < 0:
            return line
        for index, (first, last, begin, end) in enumerate(positions()):
            if index == self.instruction // 2:
                if begin is None or end is None or first != self.line:
                    return line
                text = line.encode()
                return (text[begin:end] if first == last else text[begin:]).decode(errors="replace")
        return line

    def _resolved(self, name: str) -> str:
        """Return the real name of what a dotted name stands for, as far as modules lead."""
        first, *rest = name.split(".")
        found = self.names.get(first, self.builtins.get(first))
        if found is None or first in self.code.co_varnames:
            return name
        for each in rest:
            if not isinstance(found, ModuleType) or each not in vars(found):
                return name
            found = vars(found)[each]
        return function_name(found) if callable(found) and not isinstance(found, ModuleType) else name


@dataclass(frozen=True, slots=True)
class Stack:
    """One look at a thread.

    Attributes:
        frames: The innermost first, as `module.qualname (file:line)`.
        root: `module.qualname` of what the loop has called; empty outside of one.
        file: Of the application's innermost frame; else of the innermost.
        line: The same.
        place: Where the innermost frame is, in instructions: a thread that is elsewhere at the next look
            goes on.
        callee: The library's function that the application's innermost frame calls, if it does.
        site: Where that calls a C function, if it does.
    """

    frames: tuple[str, ...]
    root: str
    file: str
    line: int
    place: tuple[int, int]
    callee: str = ""
    site: CallSite | None = field(default=None, compare=False, repr=False)

    @property
    def is_call_at_hand(self) -> bool:
        """Whether `call` reads no file."""
        return self.site is None or self.site.is_at_hand

    @property
    def call(self) -> str:
        """What the application's innermost frame calls; empty where nothing can be told.

        A library's function, or a C function as far as it can be named.
        """
        return self.callee if self.site is None else self.site.name()


def look(frame: FrameType | None) -> Stack | None:
    """Look at a thread whose innermost frame this is."""
    if frame is None:
        return None
    innermost = frame
    frames: list[str] = []
    root = called = ""
    callee: FrameType | None = None
    own: FrameType | None = None
    own_callee: FrameType | None = None
    for each in _outwards(frame):
        module = _module(each)
        package = module.partition(".")[0]
        if (package in _LOOPS or module == _OUR_LOOP) and called:
            root = called  # what is further out runs the loop
            break
        if len(frames) < MAX_FRAMES:
            frames.append(f"{name_of(each)} ({each.f_code.co_filename}:{each.f_lineno})")
        if package == _OURS:
            continue  # a wrapper: whoever calls it means what it wraps
        called = name_of(each)
        if own is None and is_own_file(each.f_code.co_filename):
            own, own_callee = each, callee
        callee = each
    told = own or innermost
    line = told.f_lineno or 0
    site = CallSite(told.f_code, told.f_lasti, line, told.f_globals, told.f_builtins)
    return Stack(
        tuple(frames),
        root,
        told.f_code.co_filename,
        line,
        (id(innermost.f_code), innermost.f_lasti),
        callee=name_of(own_callee) if own_callee is not None else "",
        site=site if own_callee is None else None,
    )


def look_at_thread(ident: int) -> Stack | None:
    """Look at a thread by its `threading.get_ident()`; None also where frames cannot be had."""
    return look(thread_frames().get(ident))


def _outwards(frame: FrameType) -> Iterator[FrameType]:
    each: FrameType | None = frame
    for _ in range(_MAX_DEPTH):
        if each is None:
            return
        yield each
        each = each.f_back


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def name_of(frame: FrameType) -> str:
    """Return `module.qualname` of what a frame runs."""
    code = frame.f_code
    qualname = getattr(code, "co_qualname", code.co_name)  # CPython 3.11
    module = _module(frame)
    return f"{module}.{qualname}" if module else qualname


def is_own_file(file: str) -> bool:
    """Whether code is the application's: neither the standard library's nor installed, nor made up."""
    return (
        bool(file)
        and not file.startswith(("<", *_LIBRARY_FOLDERS))
        and not any(each in file for each in _PACKAGES)
    )
