"""A way into one call that a function makes, which costs other callers nothing, and the function neither.

Where a library waits, the call that only those make who have to wait is often one of a module:
`asyncio.Future()`, `_core.wait_task_rescheduled(...)`. Replaced in that module, everybody would pay. Here one
function gets another idea of what a global name of its stands for. Its code, and so its frames and what a
debugger shows, stay what they were.
"""

from __future__ import annotations

import functools
from types import FunctionType
from typing import Any


def rebound(function: FunctionType, **names: object) -> FunctionType:
    """Return a function of the same code, for which some global names stand for something else."""
    other = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    other.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(other, function)
    return other


def stand_in(module: object, name: str, value: object) -> Any:
    """Return what has all the attributes of a module, now and later, but one."""
    # A slot goes before the dict, and is read as quickly.
    other: Any = type("stand_in", (), {"__slots__": (name, "__dict__")})()
    other.__dict__ = vars(module)
    setattr(other, name, value)
    return other
