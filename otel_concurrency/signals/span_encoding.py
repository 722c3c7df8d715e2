"""OTLP for spans, written straight into bytes: what upstream's encoder makes, at a sixth of its time.

Upstream builds a protobuf object for every attribute of every span, and hashes the resource for each of them
(`opentelemetry/exporter/otlp/proto/common`, 1.45): 43 µs of pure Python for a server span, for which its
thread keeps the GIL from the event loop. Most attributes have been seen before, so their bytes are kept.
Whatever is unusual about a span (events, links, a trace state, something dropped, a value that cannot be
encoded) goes through upstream's encoder, so nothing is told differently. Field numbers:
`opentelemetry/proto/trace/v1/trace.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._internal import (
    _encode_instrumentation_scope,
    _encode_key_value,
    _encode_resource,
)
from opentelemetry.exporter.otlp.proto.common._internal.trace_encoder import _encode_span, _encode_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status

MAX_KEPT = 4096
"""Attributes whose bytes are kept, and names; beyond that the table starts anew."""

MAX_KEPT_LENGTH = 128
"""Longer values are rarely the same twice."""

_Scopes = dict[InstrumentationScope | None, list[bytes]]
"""The encoded spans of each scope."""

# Tags: field number << 3 | wire type.
_TRACE_ID = b"\x0a\x10"  # with the length, 16
_SPAN_ID = b"\x12\x08"
_PARENT_SPAN_ID = b"\x22\x08"
_NAME = b"\x2a"
_KIND = b"\x30"
_START, _END = 0x39, 0x41
_ATTRIBUTES = b"\x4a"
_KEY = b"\x0a"  # of an attribute
_VALUE = b"\x12"
_STRING_VALUE = b"\x0a"
_DOUBLE_VALUE = 0x21
_STATUS = b"\x7a"
_FLAGS = b"\x85\x01"
_RESOURCE_SPANS = b"\x0a"
_RESOURCE = b"\x0a"
_SCOPE_SPANS = b"\x12"
_SCOPE = b"\x0a"
_SPANS = b"\x12"
_SCHEMA_URL = b"\x1a"

_BYTES = [bytes((number,)) for number in range(0x80)]
_pack_times = struct.Struct("<BQBQ").pack
_pack_double = struct.Struct("<BBBd").pack
_DOUBLE_LENGTH = 9
_DOUBLE_FIELD = 11  # a value that is a double, with its tag and length
_LOCAL_PARENT = _FLAGS + struct.pack("<I", 0x100)  # SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE_PARENT = _FLAGS + struct.pack("<I", 0x300)  # … and SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class SpanEncoder:
    """Encodes batches of spans, and keeps the bytes of what repeats.

    One thread at a time gains from it; more are safe, as every table is only ever read, filled and emptied.
    """

    def __init__(self) -> None:
        self._attributes: dict[tuple[str, object], bytes] = {}
        self._keys: dict[str, bytes] = {}
        self._before_doubles: dict[str, bytes] = {}
        # By the number of an enumeration's member, whose own hash is a function in Python.
        self._names: dict[tuple[str, int], bytes] = {}
        self._statuses: dict[tuple[int, str | None], bytes] = {}

    def __repr__(self) -> str:
        return f"<SpanEncoder [{len(self._attributes)} attributes, {len(self._names)} names]>"

    def encode_spans(self, spans: Iterable[ReadableSpan]) -> ExportTraceServiceRequest:
        """Return what upstream's function of this name returns."""
        request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(self.encode(spans))
        return request

    def encode(self, spans: Iterable[ReadableSpan]) -> bytes:
        """Return the bytes of an `ExportTraceServiceRequest`; `spans` is iterated once."""
        groups: list[tuple[Resource, _Scopes]] = []
        # By identity first: hashing a resource means a JSON dump of it.
        known: dict[int, _Scopes] = {}
        for span in spans:
            resource = span.resource
            scopes = known.get(id(resource))
            if scopes is None:
                scopes = next((scopes for other, scopes in groups if other == resource), None)
                if scopes is None:
                    scopes = {}
                    groups.append((resource, scopes))
                known[id(resource)] = scopes
            scope = span.instrumentation_scope or None
            encoded = scopes.get(scope)
            if encoded is None:
                encoded = scopes[scope] = []
            payload = self._span(span)
            encoded += (_SPANS, _varint(len(payload)), payload)
        return b"".join(
            _field(_RESOURCE_SPANS, _resource_spans(resource, scopes)) for resource, scopes in groups
        )

    def _span(self, span: ReadableSpan) -> bytes:
        try:
            encoded = self._usual_span(span)
        except Exception:  # a value that protobuf refuses: upstream knows what to tell and what to leave out
            encoded = None
        if encoded is None:
            return bytes(_encode_span(span).SerializeToString())
        return encoded

    def _usual_span(self, span: ReadableSpan) -> bytes | None:
        """Return the bytes of a span that has nothing unusual, or `None`."""
        attributes = span._attributes
        if attributes is not None and not isinstance(attributes, BoundedAttributes):
            return None
        if (attributes is not None and attributes.dropped) or _has_any(span._events) or _has_any(span._links):
            return None
        context, parent = span.context, span.parent
        if context is None or context.trace_state:
            return None
        parts = [
            *(_TRACE_ID, context.trace_id.to_bytes(16, "big")),
            *(_SPAN_ID, context.span_id.to_bytes(8, "big")),
        ]
        if parent:
            parts += (_PARENT_SPAN_ID, parent.span_id.to_bytes(8, "big"))
        name, kind = span.name, span.kind
        parts.append(self._names.get((name, kind._value_)) or self._keep_name(name, kind))
        parts.append(_pack_times(_START, span.start_time, _END, span.end_time))
        if attributes:
            kept = self._attributes
            for item in attributes._dict.items():
                # Exactly these: `True` and 1.0 are equal to 1, yet encoded differently.
                value_type = type(item[1])
                if value_type is str or value_type is int:
                    parts.append(kept.get(item) or self._keep_attribute(item))
                elif value_type is float:  # a time, hardly ever the same twice
                    before = self._before_doubles.get(item[0]) or self._keep_before_double(item[0])
                    parts += (before, _pack_double(0x12, _DOUBLE_LENGTH, _DOUBLE_VALUE, item[1]))
                else:
                    parts.append(_attribute(*item))
        parts.append(self._status(span.status))
        parts.append(_REMOTE_PARENT if parent and parent.is_remote else _LOCAL_PARENT)
        return b"".join(parts)

    def _keep_attribute(self, item: tuple[str, object]) -> bytes:
        key, value = item
        encoded = self._text(key, value) if type(value) is str else _attribute(key, value)
        if len(encoded) <= MAX_KEPT_LENGTH:
            if len(self._attributes) >= MAX_KEPT:
                self._attributes.clear()
            self._attributes[item] = encoded
        return encoded

    def _text(self, key: str, value: str) -> bytes:
        """Encode the most usual kind of attribute, with no call where all lengths take one byte."""
        told = value.encode()
        key_field = self._keys.get(key) or self._keep_key(key)
        length = len(told)
        whole = len(key_field) + length + 4
        if whole > 0x7F:
            value_field = _field(_STRING_VALUE, told)
            return _field(_ATTRIBUTES, key_field + _field(_VALUE, value_field))
        return b"%b%c%b\x12%c\x0a%c%b" % (_ATTRIBUTES, whole, key_field, length + 2, length, told)

    def _keep_key(self, key: str) -> bytes:
        encoded = _field(_KEY, key.encode())
        if len(encoded) <= MAX_KEPT_LENGTH:
            if len(self._keys) >= MAX_KEPT:
                self._keys.clear()
            self._keys[key] = encoded
        return encoded

    def _keep_before_double(self, key: str) -> bytes:
        key_field = self._keep_key(key)
        encoded = _ATTRIBUTES + _varint(len(key_field) + _DOUBLE_FIELD) + key_field
        if len(encoded) <= MAX_KEPT_LENGTH:
            if len(self._before_doubles) >= MAX_KEPT:
                self._before_doubles.clear()
            self._before_doubles[key] = encoded
        return encoded

    def _keep_name(self, name: str, kind: SpanKind) -> bytes:
        # OTLP counts kinds from 1: 0 says that it is not known.
        encoded = _field(_NAME, name.encode()) + _KIND + _varint(kind.value + 1)
        if len(encoded) <= MAX_KEPT_LENGTH:
            if len(self._names) >= MAX_KEPT:
                self._names.clear()
            self._names[name, kind._value_] = encoded
        return encoded

    def _status(self, status: Status) -> bytes:
        key = (status.status_code._value_, status.description)
        encoded = self._statuses.get(key)
        if encoded is None:
            told = _encode_status(status)
            encoded = _field(_STATUS, told.SerializeToString())  # type: ignore[union-attr]
            if status.description is None:
                self._statuses[key] = encoded
        return encoded


def _resource_spans(resource: Resource, scopes: _Scopes) -> bytes:
    parts = [_field(_RESOURCE, _encode_resource(resource).SerializeToString())]
    for scope, encoded in scopes.items():
        told = _encode_instrumentation_scope(scope)  # type: ignore[arg-type]  # takes `None` as well
        body = [_field(_SCOPE, told.SerializeToString()), *encoded]
        if scope and scope.schema_url:
            body.append(_field(_SCHEMA_URL, scope.schema_url.encode()))
        parts.append(_field(_SCOPE_SPANS, b"".join(body)))
    if resource.schema_url:
        parts.append(_field(_SCHEMA_URL, resource.schema_url.encode()))
    return b"".join(parts)


def _has_any(kept: object) -> bool:
    """Whether there are events, or links, or there were."""
    if isinstance(kept, BoundedList):
        return bool(kept.dropped or len(kept))
    return bool(kept)


def _attribute(key: str, value: object) -> bytes:
    return _field(_ATTRIBUTES, _encode_key_value(key, value).SerializeToString())


def _field(tag: bytes, payload: bytes) -> bytes:
    return b"".join((tag, _varint(len(payload)), payload))


def _varint(number: int) -> bytes:
    if number <= 0x7F:
        return _BYTES[number]
    if number <= 0x3FFF:  # a span
        return bytes((number & 0x7F | 0x80, number >> 7))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
