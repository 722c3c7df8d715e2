"""Files of telemetry into the store: OTLP's JSON, one document or many, and trace events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from otel_concurrency.console import otlp_json
from otel_concurrency.console.signals import SIGNALS, Signal
from otel_concurrency.console.store import Store
from otel_concurrency.console.trace_event_spans import spans_of

MAX_ITEMS = 1_000_000
"""Stored of one document."""

_KEYS = {"traces": "resourceSpans", "metrics": "resourceMetrics", "logs": "resourceLogs"}
_SIGNALS: dict[str, Signal] = {_KEYS[signal.name]: signal for signal in SIGNALS}


class ImportFailed(ValueError):  # noqa: N818  (an input, not a fault of ours)
    """What is to be imported is none of the formats; what came before that is stored."""


def import_telemetry(store: Store, content: bytes) -> dict[str, int]:
    """Store what a file holds; return how many rows went into each table.

    Args:
        store: Where it goes.
        content: Documents of OTLP's JSON, one after another, or one document of trace events.

    Raises:
        ImportFailed: It is neither.
        StoreError: It cannot be kept.
    """
    stored: dict[str, int] = {}
    for number, (document, size_bytes) in enumerate(_documents(content), 1):
        try:
            for batch in _batches(document, size_bytes):
                store.insert(batch)
                stored[batch.table.name] = stored.get(batch.table.name, 0) + len(batch.rows)
        except (otlp_json.MalformedJson, ImportFailed) as error:
            raise ImportFailed(f"document {number}: {error}") from None
    return stored


def _documents(content: bytes) -> Iterator[tuple[Any, int]]:
    """Yield the documents with their sizes; lines, or pretty-printed."""
    decoder = json.JSONDecoder()
    try:
        text = content.decode()
        at = _next(text, 0)
        while at < len(text):
            document, end = decoder.raw_decode(text, at)
            yield document, end - at
            at = _next(text, end)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ImportFailed):
            raise
        raise ImportFailed(f"not JSON: {error}") from None


def _next(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n\ufeff":
        at += 1
    return at


def _batches(document: Any, size_bytes: int) -> Iterator[Any]:
    if isinstance(document, list):
        document = {"traceEvents": document}
    known = [key for key in _SIGNALS if isinstance(document, dict) and key in document]
    for key in known:
        signal = _SIGNALS[key]
        message = signal.request()
        otlp_json.fill({key: document[key]}, message)
        yield signal.to_batch(message, size_bytes, MAX_ITEMS)
    if isinstance(document, dict) and "traceEvents" in document:
        if not isinstance(document["traceEvents"], list):
            raise ImportFailed("traceEvents is no array")
        yield SIGNALS[0].to_batch(spans_of(document["traceEvents"]), size_bytes, MAX_ITEMS)
    elif not known:
        raise ImportFailed(f"neither OTLP ({', '.join(_SIGNALS)}) nor trace events (traceEvents)")
