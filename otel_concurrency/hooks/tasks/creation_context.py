"""In which context something of asyncio was created, asked when it has failed: nothing is kept for that.

`Task.get_context` and `Handle.get_context` came with CPython 3.12. Before, a task of the C type shows its
context to the garbage collector only (`TaskObj_traverse` in `Modules/_asynciomodule.c`, where it comes before
those of callbacks), and one of the Python type has it as `_context`, like a handle.
"""

from __future__ import annotations

import asyncio
import gc
from contextvars import Context
from typing import Any


def creation_context(thing: Any) -> Context | None:
    """Return the context of a task, a handle, or the first task of a `gather`; None where nobody knows."""
    try:
        get_context = getattr(thing, "get_context", None)
        if get_context is not None:
            return _context(get_context())
        found = _context(getattr(thing, "_context", None))
        if found is not None:
            return found
        if isinstance(thing, asyncio.Task):
            return next((each for each in gc.get_referents(thing) if type(each) is Context), None)
        children = getattr(thing, "_children", None)
        return creation_context(children[0]) if isinstance(children, list) and children else None
    except Exception:  # a task class of somebody's own
        return None


def _context(found: object) -> Context | None:
    return found if type(found) is Context else None
