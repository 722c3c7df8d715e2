"""One warning while telemetry cannot be delivered, where the OTLP exporters would log every attempt.

An unreachable collector makes each exporter log a warning per retry and an error per batch, for three
signals, every five seconds. The application can do nothing about it and needs to be told once: on standard
error too, if the only handler of the root logger is the one that feeds the exporters.

Leans on the message templates of `opentelemetry.exporter.otlp.proto.{http,grpc}` (SDK 1.45). A template that
upstream rewords is let through as it is: noisier, never silent. What a reachable collector answers (401, 404,
`INVALID_ARGUMENT`) is let through as well: that needs a person each time. The batch processors' "Queue full"
is kept back while deliveries fail, since it follows from that.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

DEFAULT_INTERVAL_S = 300.0  # between two warnings
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_HTTP = "opentelemetry.exporter.otlp.proto.http"
EXPORTERS = (
    f"{_HTTP}.trace_exporter",
    f"{_HTTP}.metric_exporter",
    f"{_HTTP}._log_exporter",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk._shared_internal",  # the batch processors
    "otel_concurrency.signals.ending",
)
GIVEN_UP = "The time for the exit, %g s, was over before everything was delivered"
_ALWAYS = ("Transient error ", "Shutdown in progress, aborting retry", GIVEN_UP)
_SHUT_DOWN = "Exporter already shutdown, ignoring batch"  # the time for the exit was over, on purpose
_QUEUE_FULL = "Queue full, dropping "
_UNREACHABLE = (
    "due to timeout, max retries or shutdown",  # HTTP, retries used up
    "code: None",  # HTTP, no answer at all
    "StatusCode.UNAVAILABLE",  # gRPC
    "StatusCode.DEADLINE_EXCEEDED",
    "StatusCode.CANCELLED",  # the channel was closed while an export waited
)


class ExportFailures(logging.Filter):
    """Lets the first failure of an interval through, reworded, and counts the others."""

    def __init__(
        self, interval_s: float = DEFAULT_INTERVAL_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._now = now
        self._suppressed = 0
        self._failed_at: float | None = None
        self._told_at: float | None = None
        # Who tells after which telling: exporters fail on three threads at once, and a lock could be held by
        # one of them while the process forks. `setdefault` needs none.
        self._claims: dict[float | None, object] = {}

    def __repr__(self) -> str:
        return f"<ExportFailures [{self._suppressed} suppressed, one warning in {self._interval_s:g} s]>"

    def install(self) -> None:
        """Listen to the exporters' loggers; a second call changes nothing."""
        for name in EXPORTERS:
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        """Let everything through again."""
        for name in EXPORTERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass what is no delivery failure; of these, pass the first in each interval."""
        now = self._now()
        if record.msg == _SHUT_DOWN:
            return False
        if str(record.msg).startswith(_QUEUE_FULL):
            return not self._is_recent(self._failed_at, now)  # what an undelivered queue comes to
        if not _is_undelivered(record):
            return True
        self._failed_at = now
        told_at, mine = self._told_at, object()
        if self._is_recent(told_at, now) or self._claims.setdefault(told_at, mine) is not mine:
            self._suppressed += 1
            return False
        self._told_at = now
        for past in [key for key in self._claims.copy() if key != told_at]:
            self._claims.pop(past, None)
        suppressed, self._suppressed = self._suppressed, 0
        record.args = (_endpoint(), record.getMessage(), suppressed, self._interval_s)
        record.msg = (
            "Telemetry cannot be delivered (%s); the application runs on. %s"
            " [%d more failures since the last such warning; one in %.0f s at most]"
        )
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
        record.exc_info = record.exc_text = None
        if logging.lastResort is not None and _only_telemetry_hears(logging.getLogger(record.name)):
            logging.lastResort.handle(record)
        return True

    def _is_recent(self, at: float | None, now: float) -> bool:
        return at is not None and now - at < self._interval_s


def _endpoint() -> str:
    """Name what was configured: the exporters' own words often leave out where they tried."""
    endpoint = os.environ.get(_ENDPOINT)
    return f"{_ENDPOINT}={endpoint.rpartition('@')[2]}" if endpoint else f"{_ENDPOINT} is not set"


def _only_telemetry_hears(logger: logging.Logger) -> bool:
    """Whether a record would go to OpenTelemetry's handler alone: into the very queue that is stuck."""
    handlers: list[logging.Handler] = []
    current: logging.Logger | None = logger
    while current is not None:
        handlers += current.handlers
        current = current.parent if current.propagate else None
    return bool(handlers) and all(type(each).__module__.startswith("opentelemetry.") for each in handlers)


def _is_undelivered(record: logging.LogRecord) -> bool:
    template = str(record.msg)
    if template.startswith(_ALWAYS):
        return True
    if not template.startswith("Failed to export "):
        return False
    message = record.getMessage()
    return any(sign in message for sign in _UNREACHABLE)
