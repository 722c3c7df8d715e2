"""How spans and log records leave the process: without holding the GIL in long stretches.

A batch is encoded by a thread that competes with the event loop for the GIL. Upstream's loop over 512 spans
keeps it for some 8 ms of pure Python, in which the event loop waits up to `sys.getswitchinterval()` after
each of its system calls. So a batch offers the GIL every few items, and spans are encoded by `span_encoding`,
at a fraction of upstream's time. Measured: p99 of a service with 19.6 ms before and 5.7 ms after
(docs/benchmarks.md).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from otel_concurrency.hooks.patch import Patch
from otel_concurrency.signals import pipelines
from otel_concurrency.signals.pipelines import Batch

ITEMS_AT_ONCE = 8
"""Items encoded between two looks at the clock."""

OFFER_AFTER_NS = 250_000
"""Encoding for this long earns the others their turn; a hand-over costs two context switches."""

_OTLP = "opentelemetry.exporter.otlp."
_EXPORTERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
)
_logger = logging.getLogger(__name__)


class PoliteBatch(list[Any]):
    """A batch that offers the GIL every few items while it is iterated."""

    def __iter__(self) -> Iterator[Any]:
        offered_ns = time.perf_counter_ns()
        for position, item in enumerate(list.__iter__(self), 1):
            yield item
            if position % ITEMS_AT_ONCE == 0 and time.perf_counter_ns() - offered_ns > OFFER_AFTER_NS:
                time.sleep(0)
                offered_ns = time.perf_counter_ns()


class PoliteExports:
    """Lets the OTLP exporters behind the SDK's batch processors receive their batches as `PoliteBatch`."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<PoliteExports [{len(self._undo)} exporters]>"

    def install(self) -> None:
        """Reach the exporters of the global providers; those that are polite already stay as they are."""
        parts = pipelines.current()
        for each in (*parts.spans, *parts.log_records):
            if isinstance(each, Batch) and type(each.exporter).__module__.startswith(_OTLP):
                self._reach(each.exporter)

    def remove(self) -> None:
        """Let them receive what the processors have."""
        while self._undo:
            self._undo.pop()()

    def _reach(self, exporter: Any) -> None:
        if "export" in vars(exporter):
            return
        export = exporter.export
        polite = exporter.export = lambda batch: export(PoliteBatch(batch))

        def undo() -> None:
            if vars(exporter).get("export") is polite:
                del exporter.export

        self._undo.append(undo)


class SpanEncoding:
    """Puts our span encoder into the OTLP exporters that are loaded.

    A batch that it cannot encode goes through upstream's, and from then on all do: said once.
    """

    def __init__(self) -> None:
        self._patches: list[Patch] = []

    def __repr__(self) -> str:
        return f"<SpanEncoding {self._patches}>"

    def install(self) -> None:
        """Patch each loaded exporter; an SDK that is built differently keeps its own encoder."""
        loaded = [sys.modules.get(name) for name in _EXPORTERS]
        modules = [each for each in loaded if hasattr(each, "encode_spans") and not self._has(each)]
        if not modules:  # without an exporter, importing protobuf would be the dearest part of our start
            return
        try:
            from otel_concurrency.signals.span_encoding import SpanEncoder
        except ImportError:  # upstream's private helpers have moved
            _logger.debug("This SDK's span encoder stays in place", exc_info=True)
            return
        for module in modules:
            patch = Patch(module, "encode_spans", lambda original: _encoded_by(SpanEncoder(), original))
            patch.install()
            self._patches.append(patch)

    def remove(self) -> None:
        """Put upstream's encoder back."""
        while self._patches:
            self._patches.pop().remove()

    def _has(self, module: Any) -> bool:
        return any(patch.owner is module for patch in self._patches)


def _encoded_by(
    encoder: Any, original: Callable[[Any], Any]
) -> tuple[Callable[[Any], Any], Callable[[], None]]:
    encode = encoder.encode_spans

    def encode_spans(sdk_spans: Any) -> Any:
        try:
            return encode(sdk_spans)
        except Exception:
            if encode is original:
                raise
            silence()
            _logger.warning("Spans go through upstream's encoder from now on", exc_info=True)
            return original(sdk_spans)

    def silence() -> None:
        nonlocal encode
        encode = original

    return encode_spans, silence
