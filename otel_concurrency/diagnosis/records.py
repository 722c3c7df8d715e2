"""Frozen records to JSON and back: plain dicts, lists, text and numbers, by the fields' annotations."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def to_data(record: Any) -> dict[str, Any]:
    """Return what `json.dumps` takes."""
    data: dict[str, Any] = asdict(record)
    return data


def to_json(record: Any) -> str:
    """Return a record as one line of JSON."""
    return json.dumps(to_data(record), separators=(",", ":"))


def from_data(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """Return a record; fields that are missing keep their defaults, unknown ones are left out."""
    hints = _hints(kind)  # type: ignore[arg-type]
    return kind(**{name: _read(hint, data[name]) for name, hint in hints.items() if name in data})


def from_json(kind: type[_T], text: str) -> _T:
    """Return the record that `to_json` wrote."""
    return from_data(kind, json.loads(text))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _read(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if is_dataclass(hint):
        return from_data(hint, value)  # type: ignore[arg-type]
    if isinstance(hint, types.UnionType):
        return _read(next(each for each in get_args(hint) if each is not types.NoneType), value)
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if parts[-1] is Ellipsis:
            return tuple(_read(parts[0], each) for each in value)
        return tuple(_read(part, each) for part, each in zip(parts, value, strict=True))
    return value
