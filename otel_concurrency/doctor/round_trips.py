"""Whether each signal gets to where it is sent: one empty export each, through the exporters there are.

An empty export travels like any other, past proxies and authentication, and leaves nothing behind there.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics.export import MetricsData

from otel_concurrency.doctor.report import Check
from otel_concurrency.hooks.logs.export_failures import EXPORTERS
from otel_concurrency.signals import pipelines

TIMEOUT_S = 5.0
"""The OTLP exporters would try again for ten."""

_LOCAL = ("Console", "InMemory")
_THREAD_NAME = "otel-concurrency-doctor"


@dataclass(slots=True)
class _Trip:
    signal: str
    exporter: Any
    nothing: Any
    took_s: float | None = None
    result: str = ""
    reason: str = ""

    def go(self) -> None:
        began_s = time.monotonic()
        try:
            self.result = getattr(self.exporter.export(self.nothing), "name", "SUCCESS")
        except Exception as error:
            self.result, self.reason = "FAILURE", f"{type(error).__name__}: {error}"
        self.took_s = time.monotonic() - began_s

    def check(self) -> Check:
        kind = type(self.exporter).__name__
        target = getattr(self.exporter, "_endpoint", "") or _endpoint_of(self.signal)
        where = f"{kind} to {target}" if not kind.startswith(_LOCAL) else kind
        if self.took_s is None:
            return Check(self.signal, f"{where}: {self.reason or 'no answer'}, for {TIMEOUT_S:g} s", "fail")
        if self.result != "SUCCESS":
            return Check(self.signal, f"{where}: {self.reason or 'it was not taken'}", "fail")
        return Check(self.signal, f"{where}: taken in {self.took_s * 1e3:.0f} ms")


def round_trip_checks(timeout_s: float = TIMEOUT_S) -> Iterator[Check]:
    """Send nothing, by every exporter at once, and tell what came of it."""
    trips = list(_trips())
    with _Reasons(trips):
        threads = [
            threading.Thread(target=trip.go, name=f"{_THREAD_NAME}-{position}", daemon=True)
            for position, trip in enumerate(trips)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    seen = {trip.signal for trip in trips}
    for signal in ("traces", "metrics", "logs"):
        yield from (trip.check() for trip in trips if trip.signal == signal)
        if signal not in seen:
            variable = f"OTEL_{signal.upper()}_EXPORTER"
            said = os.environ.get(variable)
            text = f"{variable}={said}" if said else "no exporter that could be asked"
            yield Check(signal, f"sent nowhere: {text}", "warn" if said != "none" else "info")


def _trips() -> Iterator[_Trip]:
    ways = pipelines.current()
    for signal, found, make_nothing in (
        ("traces", ways.spans, list),
        ("metrics", ways.metrics, lambda: MetricsData(resource_metrics=[])),
        ("logs", ways.log_records, list),
    ):
        make: Callable[[], Any] = make_nothing
        for way in found:
            exporter = _exporter_of(way)
            if exporter is not None and hasattr(exporter, "export"):
                yield _Trip(signal, exporter, make())


def _exporter_of(way: Any) -> Any:
    for name in ("_batch", "_reader", "_part"):
        part = getattr(way, name, None)
        for attribute in ("_exporter", "span_exporter", "_log_record_exporter"):
            if (exporter := getattr(part, attribute, None)) is not None:
                return exporter
    return None


def _endpoint_of(signal: str) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        if os.environ.get(variable):
            return os.environ[variable]
    return "its default endpoint"


class _Reasons(logging.Filter):
    """Keeps what exporters log while they are at it, for the doctor alone: their result says nothing."""

    def __init__(self, trips: list[_Trip]) -> None:
        super().__init__()
        self._trips = trips
        self._loggers = [logging.getLogger(name) for name in EXPORTERS]

    def __enter__(self) -> _Reasons:
        for logger in self._loggers:
            logger.filters.insert(0, self)  # before the one that keeps failures back
        return self

    def __exit__(self, *exc_info: object) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the last word of the thread that an exporter runs in."""
        name, _, position = (record.threadName or "").rpartition("-")
        if name != _THREAD_NAME or not position.isdecimal():
            return True
        self._trips[int(position)].reason = _short(record.getMessage())
        return False


def _short(message: str) -> str:
    """Return the cause at the bottom of what an exporter says, where it is that of a connection."""
    found = re.search(r"\[Errno -?\d+\] [^'\")]+", message)
    return found[0] if found is not None else message[:300]
