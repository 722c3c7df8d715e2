"""`/metrics`: everything the meter provider has, for Prometheus.

A reader of its own, so that nobody else's exports are touched: it counts from the start, like the others. One
collection at a time; whoever asks meanwhile, or within `FRESH_S`, gets what the last one found. A callback of
the program's that does not return makes the answer old, and never late.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Any

from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics import _Gauge as SynchronousGauge
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData

from otel_concurrency.endpoints.exposition import OPENMETRICS, TEXT, Exposition
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, refusal
from otel_concurrency.probes.quiet_thread import QuietThread
from otel_concurrency.signals.producer import default_producer

FRESH_S = 1.0
"""For how long what was collected serves everybody who asks."""

WAIT_S = 2.0
"""How long a client waits for a collection; then it gets the last one."""

_THREAD_NAME = "otel-concurrency-scrape"
_COMPRESSED_FROM = 1_024
_QUALITY = re.compile(r"q=([01](?:\.\d{0,3})?)")
_KINDS = (
    Counter,
    UpDownCounter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    SynchronousGauge,
)

_logger = logging.getLogger(__name__)


class ScrapeReader(MetricReader):
    """Collects when it is asked to, and keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(preferred_temporality=dict.fromkeys(_KINDS, AggregationTemporality.CUMULATIVE))
        self._received: MetricsData | None = None

    def read(self) -> MetricsData:
        """Collect; nothing collected is an empty answer."""
        self._received = None
        self.collect()
        received, self._received = self._received, None
        return received or MetricsData([])

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> None:
        self._received = metrics_data

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Do nothing: nobody has asked."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one collection has found.

    Attributes:
        at: When it began, monotonic seconds.
        data: The metrics.
        took_s: How long it took.
    """

    at: float
    data: MetricsData
    took_s: float = 0.0


class Metrics:
    """Answers `/metrics`.

    Args:
        provider: By default the global one.
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        self._provider = provider
        self._reader: ScrapeReader | None = None
        self.begin()

    def begin(self) -> None:
        """Know nothing: at first, and in a forked child."""
        self._changed = threading.Condition(threading.Lock())
        self._is_collecting = False
        self._last: Scrape | None = None
        self._encoded: dict[str, bytes] = {}
        if self._reader is not None:
            default_producer().expect(self._reader)

    def install(self) -> bool:
        """Count from now on; False where the program has no provider of the SDK's."""
        provider = self._provider or get_meter_provider()
        if not isinstance(provider, MeterProvider):
            return False
        if self._reader is None:
            reader = ScrapeReader()
            provider.add_metric_reader(reader)
            default_producer().expect(reader)
            self._provider, self._reader = provider, reader
        return True

    def remove(self) -> None:
        """Count no more."""
        reader, self._reader = self._reader, None
        if reader is not None and self._provider is not None:
            self._provider.remove_metric_reader(reader)

    def __call__(self, request: Request) -> Response:
        """Answer, in the format that the client likes best."""
        media_type = OPENMETRICS if wants_openmetrics(request.headers.get("accept", "")) else TEXT
        scrape = self._latest()
        if scrape is None:
            return refusal(503, f"collecting takes longer than {WAIT_S:g} s: a callback may hang")
        body = self._encode(scrape, media_type)
        headers = {"X-Collected-Seconds-Ago": f"{time.monotonic() - scrape.at:.3f}", "Vary": "Accept"}
        if "gzip" in request.headers.get("accept-encoding", "") and len(body) >= _COMPRESSED_FROM:
            packer = zlib.compressobj(1, wbits=31)
            body = packer.compress(body) + packer.flush()
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=media_type, headers=headers)

    def _latest(self) -> Scrape | None:
        asked = time.monotonic()
        with self._changed:
            if self._last is not None and asked - self._last.at < FRESH_S:
                return self._last
            if not self._is_collecting and self._reader is not None:
                self._is_collecting = True
                QuietThread(self._collect, name=_THREAD_NAME).start()
            self._changed.wait_for(lambda: not self._is_collecting, WAIT_S)
            return self._last

    def _collect(self) -> None:
        began = time.monotonic()
        scrape = None
        try:
            if self._reader is not None:
                scrape = Scrape(began, self._reader.read(), time.monotonic() - began)
        except Exception:
            _logger.debug("Metrics could not be collected", exc_info=True)
        finally:
            with self._changed:
                self._is_collecting = False
                if scrape is not None:
                    self._last, self._encoded = scrape, {}
                self._changed.notify_all()

    def _encode(self, scrape: Scrape, media_type: str) -> bytes:
        encoded = self._encoded  # that of this scrape: replaced together with it
        body = encoded.get(media_type) if scrape is self._last else None
        if body is None:
            exposition = Exposition(openmetrics=media_type == OPENMETRICS)
            exposition.add(scrape.data)
            body = exposition.text().encode()
            if scrape is self._last:
                encoded[media_type] = body
        return body


def wants_openmetrics(accept: str) -> bool:
    """Tell whether a client likes OpenMetrics 1.0 at least as well as Prometheus' text."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for each in accept.lower().split(","):
        media_type, _, parameters = each.strip().partition(";")
        found = _QUALITY.search(parameters)
        quality = float(found[1]) if found else 1.0
        if media_type == "application/openmetrics-text" and "version=0.0.1" in parameters:
            continue
        if media_type in best:
            best[media_type] = max(best[media_type], quality)
    return (
        best["application/openmetrics-text"] > 0
        and best["application/openmetrics-text"] >= best["text/plain"]
    )
