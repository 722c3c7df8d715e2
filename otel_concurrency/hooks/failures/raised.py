"""What is told of an exception, taken while it is there: later nobody holds it, or its frames, for us."""

from __future__ import annotations

import linecache  # noqa: F401  (formatting needs it; an import inside a collection could meet its lock)
import traceback
from types import CodeType, FrameType
from typing import NamedTuple

MAX_FRAMES = 100
"""The innermost frames of a traceback that are told."""

MAX_TEXT = 20_000
"""Characters of a message or a stack trace; beyond that its middle is left out."""


class Place(NamedTuple):
    """Where something was raised, or is: empty where nobody knows.

    Attributes:
        function: `module.qualname`.
        file: Its file.
        line: The line, or 0.
    """

    function: str = ""
    file: str = ""
    line: int = 0


NOWHERE = Place()


def place_of(error: BaseException) -> Place:
    """Return where an exception was raised: the innermost frame of its traceback."""
    at = error.__traceback__
    if at is None:
        return NOWHERE
    while at.tb_next is not None:
        at = at.tb_next
    return place_in(at.tb_frame, at.tb_lineno)


def place_in(frame: FrameType, line: int) -> Place:
    """Return a line of a frame."""
    return Place(function_of(frame.f_code, frame.f_globals.get("__name__")), frame.f_code.co_filename, line)


def function_of(code: CodeType, module: object) -> str:
    """Return `module.qualname`; before 3.11 code knows only its plain name."""
    qualname: str = getattr(code, "co_qualname", code.co_name)
    return f"{module}.{qualname}" if isinstance(module, str) else qualname


def module_of(code: object, error: BaseException | None) -> str:
    """Return the module whose code this is, if the exception came through it; else nothing."""
    at = None if error is None else error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is code:
            module = at.tb_frame.f_globals.get("__name__")
            return module if isinstance(module, str) else ""
        at = at.tb_next
    return ""


def message_of(error: BaseException) -> str:
    """Return what it says of itself, which may be that it cannot."""
    try:
        return shortened(str(error))
    except Exception:
        return "<exception str() failed>"


def stack_of(error: BaseException) -> str:
    """Return its traceback as Python prints it, with those of its causes."""
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-MAX_FRAMES)
        return shortened("".join(lines))
    except Exception:
        return ""


def shortened(text: str) -> str:
    """Leave out the middle of a long text."""
    half = MAX_TEXT // 2
    return text if len(text) <= MAX_TEXT else f"{text[:half]}\n[…]\n{text[-half:]}"
