"""The environment of a program that is about to start, with the context in it.

Names are those of the propagator in capitals: `TRACEPARENT`, `TRACESTATE`, `BAGGAGE` (OpenTelemetry's
"Environment Variables as Context Propagation Carriers").
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

_BAGGAGE = "BAGGAGE"  # stands for itself; all other fields tell of the trace, and belong together

# Reads C's environment; CPython 3.14.
_create_environ = getattr(importlib.import_module(os.name), "_create_environ", None)


def variable(field: str) -> str:
    """Name the variable of a propagator's field."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", field).upper() or "_"
    return f"_{name}" if name[0].isdigit() else name


def with_context(
    env: Mapping[Any, Any] | None,
    carrier: Mapping[str, str],
    fields: Iterable[str],
    at_start: Mapping[str, str],
) -> Mapping[Any, Any] | None:
    """Return the environment that a program gets, in the place of the one that was asked for.

    Args:
        env: What the application asked for; None means its own. Never changed.
        carrier: What the current context has to carry, by field; not empty.
        fields: All fields that the propagator may set.
        at_start: The variables of these fields with which this process was started. What `env` has of them is
            no choice of the application's, and gives way; another value is one, and stays.

    Returns:
        A dict, with names in bytes if all of `env` are; or `env` itself, if its values all stay.
    """
    environment = own_environment() if env is None else dict(env.items())
    in_bytes = bool(environment) and all(isinstance(name, bytes) for name in environment)
    names = {field: variable(field) for field in {*fields, *carrier}}
    present = {_text(name).upper() if os.name == "nt" else _text(name): name for name in environment}
    given = {name: _text(environment[present[name]]) for name in names.values() if name in present}
    chosen = {name for name, value in given.items() if at_start.get(name) != value}
    trace_is_chosen = bool(chosen - {_BAGGAGE})
    changed = False
    for field, name in names.items():
        if name in chosen or (name != _BAGGAGE and trace_is_chosen):
            continue
        if name in given:
            del environment[present[name]]
            changed = True
        if field in carrier:
            value = carrier[field]
            environment[os.fsencode(name) if in_bytes else name] = os.fsencode(value) if in_bytes else value
            changed = True
    return environment if changed else env


def changes(environment: Mapping[Any, Any], fields: Iterable[str]) -> dict[str, str | None]:
    """Tell what of these fields an environment says, in variables; None for one that it has not."""
    return {name: environment.get(name) for name in map(variable, fields)}


def own_environment() -> dict[Any, Any]:
    """Copy the environment that a child of this process inherits.

    That is C's, which knows more than `os.environ` where `os.putenv` or a library has changed it.
    """
    found: dict[Any, Any] | None = None
    if _create_environ is not None:
        found = _create_environ()
    elif sys.platform.startswith("linux"):
        found = _read_environ()
    if found is None:
        return dict(os.environ)
    return {_text(name): _text(value) for name, value in found.items()}


def _read_environ() -> dict[bytes, bytes] | None:
    try:
        import ctypes

        entries = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    except (ImportError, OSError, ValueError):
        return None
    found: dict[bytes, bytes] = {}
    position = 0
    while entries and (entry := entries[position]) is not None:
        name, equals, value = entry[1:].partition(b"=")  # a name may begin with "=", as CPython reads it
        if equals:
            found.setdefault(entry[:1] + name, value)
        position += 1
    return found


def _text(value: Any) -> Any:
    return os.fsdecode(value) if isinstance(value, bytes) else value
