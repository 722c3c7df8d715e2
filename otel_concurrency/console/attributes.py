"""Attributes, resources and scopes: from OTLP messages to the JSON and the keys that rows hold."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_concurrency.console.schema import Batch, ResourceRow, ScopeRow

to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
"""Write JSON, compact; what it is given holds no infinities any more."""

HIGHEST_NS = 2**63 - 1
"""The last instant a row can hold, in the year 2262."""


MAX_JSON = 256 * 1024
"""Characters of one row's attributes, events, links or body; longer ones are cut, and say so."""

MAX_TEXT = 8 * 1024
"""Characters that a text inside of too long a one keeps."""

MAX_NAME = 4 * 1024
"""Characters of a name."""


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


def bounded_json(value: Any) -> str:
    """Return JSON of at most `MAX_JSON` characters: long texts are cut, then what comes last is left out."""
    text = to_json(value)
    if len(text) <= MAX_JSON:
        return text
    short = _cut(value)
    text = to_json(short)
    if len(text) <= MAX_JSON:
        return text
    if isinstance(short, dict):
        kept = dict(_first(short.items()))
        return to_json(kept | {"…": f"{len(short) - len(kept)} more left out"})
    if isinstance(short, list):
        kept_items = list(_first(short))
        return to_json([*kept_items, f"… {len(short) - len(kept_items)} more left out"])
    return to_json(name(str(short)))


def bounded_list_json(items: Sequence[Any]) -> tuple[str, int]:
    """Return JSON of the items that fit, texts cut, and how many do not."""
    text = to_json(items)
    if len(text) <= MAX_JSON:
        return text, 0
    short = [_cut(item) for item in items]
    kept = list(_first(short))
    return to_json(kept), len(short) - len(kept)


def _first(items: Iterable[Any]) -> Iterator[Any]:
    room = MAX_JSON - 100
    for item in items:
        room -= len(to_json(item)) + 1
        if room < 0:
            return
        yield item


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return _cut_text(value, MAX_TEXT)
    if isinstance(value, dict):
        return {_cut_text(key, MAX_NAME): _cut(item) for key, item in value.items()}
    return [_cut(item) for item in value] if isinstance(value, list) else value


def _cut_text(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def name(text: str) -> str:
    """Return a name of at most some `MAX_NAME` characters."""
    return _cut_text(text, MAX_NAME)


def attributes_json(attributes: Iterable[KeyValue]) -> str:
    """Return attributes as a JSON object; of two with one key the later counts."""
    return bounded_json({pair.key: plain(pair.value) for pair in attributes})


def series_json(attributes: Iterable[KeyValue]) -> str:
    """Return attributes as a JSON object in one order: equal ones are equal as text, and so one series."""
    named = {pair.key: plain(pair.value) for pair in attributes}
    return bounded_json(dict(sorted(named.items(), key=itemgetter(0))))


def hex_id(raw: bytes, size: int) -> str | None:
    """Return an id as hex; none if it is not `size` bytes long or is all zeros: OTLP's two ways to say so."""
    return raw.hex() if len(raw) == size and any(raw) else None


def resource_key(resource: Resource, schema_url: str, batch: Batch) -> int:
    """Put a resource into the batch and return its key."""
    text = attributes_json(resource.attributes)
    key = _content_key(text, schema_url)
    if key not in batch.resources:
        known = json.loads(text)
        service, instance = (name(str(known.get(it, ""))) for it in ("service.name", "service.instance.id"))
        batch.resources[key] = ResourceRow(key, service, instance, text, name(schema_url))
    return key


def scope_key(scope: InstrumentationScope, schema_url: str, batch: Batch) -> int:
    """Put a scope into the batch and return its key."""
    text = attributes_json(scope.attributes)
    key = _content_key(scope.name, scope.version, text, schema_url)
    if key not in batch.scopes:
        scope_name, version = name(scope.name), name(scope.version)
        batch.scopes[key] = ScopeRow(key, scope_name, version, text, name(schema_url))
    return key


def _content_key(*parts: str) -> int:
    digest = blake2b(to_json(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
