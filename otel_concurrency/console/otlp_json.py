"""OTLP's JSON: protobuf messages as JSON, with ids in hex.

The rules are the OTLP specification's ("JSON Protobuf Encoding"): keys in lowerCamelCase and no other,
trace and span ids in hex, 64-bit integers as decimal strings (numbers are taken too), enums as integers
(names are taken too), unknown keys ignored. `google.protobuf.json_format` cannot serve: it wants ids in
base64 and takes snake_case keys.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import math
from collections.abc import Iterator, MutableSequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

MAX_DEPTH = 100
"""Messages within messages; protobuf's own limit on the wire is the same."""

_HEX_FIELDS = frozenset({"trace_id", "span_id", "parent_span_id"})
_INTEGER_TYPES = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT32,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_NAMED_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_EXPECTED = {
    FieldDescriptor.TYPE_BYTES: "an id in hex, or bytes in base64",
    FieldDescriptor.TYPE_STRING: "a string",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_ENUM: "an enum's integer",
}
_MISFITS = (ValueError, TypeError, OverflowError, LookupError)


class MalformedJson(ValueError):  # noqa: N818  (an input, not a fault of ours)
    """What came is not JSON, or not the message it should be.

    Args:
        problem: What is wrong.
        place: Where, such as `resourceSpans[0].scopeSpans`; grows outwards while the error travels.
    """

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.problem = problem
        self.place = place

    def within(self, outer: str) -> MalformedJson:
        """Return the same complaint, seen from one level further out."""
        separator = "." if self.place and not self.place.startswith("[") else ""
        return MalformedJson(self.problem, f"{outer}{separator}{self.place}")


def parse(text: bytes, message: Message) -> None:
    """Fill a message from JSON.

    Raises:
        MalformedJson: The text is not the JSON of such a message.
    """
    try:
        value = json.loads(text.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedJson(f"not JSON: {error}") from None
    fill(value, message)


def fill(value: object, message: Message) -> None:
    """Fill a message from what JSON was read as.

    Raises:
        MalformedJson: It is not such a message.
    """
    _fill(message, value, 0)


def dump(message: Message) -> bytes:
    """Write an answer as JSON; answers hold no ids, so protobuf's own writer serves."""
    return json.dumps(json_format.MessageToDict(message), separators=(",", ":")).encode()


def _fill(message: Message, value: object, depth: int) -> None:
    if not isinstance(value, dict):
        raise _unexpected("an object", value)
    if depth > MAX_DEPTH:
        raise MalformedJson(f"more than {MAX_DEPTH} messages inside one another")
    fields = _fields(message.DESCRIPTOR)
    for key, item in value.items():
        field = fields.get(key)
        if field is None or item is None:
            continue
        try:
            held = getattr(message, field.name)
            if isinstance(held, MutableSequence):
                _extend(held, field, item, depth)
            else:
                _set(message, field, item, depth)
        except MalformedJson as error:
            raise error.within(key) from None


def _extend(container: Any, field: FieldDescriptor, value: object, depth: int) -> None:
    if not isinstance(value, list):
        raise _unexpected("an array", value)
    for position, item in enumerate(value):
        try:
            if field.message_type is not None:
                _fill(container.add(), item, depth + 1)
            else:
                with _complaint(field, item):
                    container.append(_scalar(field, item))
        except MalformedJson as error:
            raise error.within(f"[{position}]") from None


def _set(message: Message, field: FieldDescriptor, value: object, depth: int) -> None:
    oneof = field.containing_oneof
    if oneof is not None and message.WhichOneof(oneof.name) is not None:
        raise MalformedJson("a second value where only one can be")
    if field.message_type is not None:
        child: Message = getattr(message, field.name)
        child.SetInParent()
        _fill(child, value, depth + 1)
    else:
        with _complaint(field, value):
            setattr(message, field.name, _scalar(field, value))


def _scalar(field: FieldDescriptor, value: object) -> object:
    """Return a value as protobuf takes it; a misfit raises one of `_MISFITS`, here or on assignment."""
    if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str):
        if field.name in _HEX_FIELDS:
            return bytes.fromhex(value)
        return base64.b64decode(value, validate=True)
    if field.type in _INTEGER_TYPES and isinstance(value, str | float):
        return _integer(value)
    if field.enum_type is not None and isinstance(value, str):
        return field.enum_type.values_by_name[value].number
    if field.type == FieldDescriptor.TYPE_DOUBLE and isinstance(value, str):
        return _NAMED_FLOATS[value] if value in _NAMED_FLOATS else float(value)
    if isinstance(value, bool) != (field.type == FieldDescriptor.TYPE_BOOL):
        raise TypeError
    return value


def _integer(value: str | float) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError
    return number


@contextlib.contextmanager
def _complaint(field: FieldDescriptor, value: object) -> Iterator[None]:
    try:
        yield
    except _MISFITS:
        raise _unexpected(_EXPECTED.get(field.type, "an integer in range"), value) from None


def _unexpected(expected: str, value: object) -> MalformedJson:
    shown = json.dumps(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return MalformedJson(f"expected {expected}, not {shown if len(shown) <= 40 else shown[:39] + '…'}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} outside quotes")


@functools.cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    return {field.json_name: field for field in descriptor.fields}
