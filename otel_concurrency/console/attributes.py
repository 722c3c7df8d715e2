"""Attributes, resources and scopes: from OTLP messages to the JSON and the keys that rows hold."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_concurrency.console.schema import Batch, ResourceRow, ScopeRow

to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
"""Write JSON, compact; what it is given holds no infinities any more."""

HIGHEST_NS = 2**63 - 1
"""The last instant a row can hold, in the year 2262."""


def plain(value: AnyValue) -> Any:
    """Return a value as JSON can hold it: bytes become base64, infinities and NaN become their names."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return value.int_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "double_value":
        return number(value.double_value)
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None


def number(value: float) -> float | str:
    """Return a finite number as it is, any other by the name that JSON encodings of protobuf give it."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def attributes_json(attributes: Iterable[KeyValue]) -> str:
    """Return attributes as a JSON object; of two with one key the later counts."""
    return to_json({pair.key: plain(pair.value) for pair in attributes})


def series_json(attributes: Iterable[KeyValue]) -> str:
    """Return attributes as a JSON object in one order: equal ones are equal as text, and so one series."""
    return to_json(dict(sorted((pair.key, plain(pair.value)) for pair in attributes)))


def hex_id(raw: bytes, size: int) -> str | None:
    """Return an id as hex; none if it is not `size` bytes long or is all zeros: OTLP's two ways to say so."""
    return raw.hex() if len(raw) == size and any(raw) else None


def resource_key(resource: Resource, schema_url: str, batch: Batch) -> int:
    """Put a resource into the batch and return its key."""
    text = attributes_json(resource.attributes)
    key = _content_key(text, schema_url)
    if key not in batch.resources:
        known = json.loads(text)
        service, instance = (known.get(name, "") for name in ("service.name", "service.instance.id"))
        batch.resources[key] = ResourceRow(key, str(service), str(instance), text, schema_url)
    return key


def scope_key(scope: InstrumentationScope, schema_url: str, batch: Batch) -> int:
    """Put a scope into the batch and return its key."""
    text = attributes_json(scope.attributes)
    key = _content_key(scope.name, scope.version, text, schema_url)
    if key not in batch.scopes:
        batch.scopes[key] = ScopeRow(key, scope.name, scope.version, text, schema_url)
    return key


def _content_key(*parts: str) -> int:
    digest = blake2b(to_json(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
