"""Tells interpreters that a program's own pools make from the one that the program runs in.

Every interpreter of a process runs `sitecustomize` when it starts. Those of `InterpreterPoolExecutor` and
`concurrent.interpreters` (CPython 3.14) are workers: an SDK in each would be one more service with the same
process id, with threads and exporters of its own that nobody flushes. Interpreters that an embedding program
makes by `Py_NewInterpreter`, as Apache's mod_wsgi does, are where applications run.
"""

from __future__ import annotations

import importlib

_MODULE = "_interpreters"  # CPython 3.13
# While `sitecustomize` runs, CPython has not said yet that the standard library asked for the interpreter,
# but only that it was made from a configuration; the older way makes none from one.
_WORKERS = ("WHENCE_CAPI", "WHENCE_XI", "WHENCE_STDLIB")


def is_worker_interpreter() -> bool:
    """Whether this is an interpreter beside the program's own, made to work for it."""
    try:
        interpreters = importlib.import_module(_MODULE)
        _, whence = interpreters.get_current()
        return whence in [getattr(interpreters, name) for name in _WORKERS]
    except (ImportError, AttributeError, TypeError, ValueError):  # older, or built differently
        return False


def is_main_interpreter() -> bool:
    """Whether this is the interpreter that the process began with; so where there is no way to ask."""
    for name in (_MODULE, "_xxsubinterpreters"):  # CPython 3.10 to 3.12
        try:
            interpreters = importlib.import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
        except (ImportError, AttributeError):
            continue
    return True
