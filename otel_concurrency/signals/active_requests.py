"""The requests that are open now: a list for whoever looks, and `http.server.active_requests`.

Upstream's instrumentors and FastAPI's own telemetry emit this metric; where one of them has made the
instrument, it comes from there alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry import metrics
from opentelemetry.trace import INVALID_SPAN, Span

from otel_concurrency.hooks.services.http_servers import request_line
from otel_concurrency.probes.active_requests import ActiveRequests, OpenRequest
from otel_concurrency.signals import names
from otel_concurrency.signals.current_context import SPAN_KEY, variable
from otel_concurrency.signals.readings import Reading, SumReading

_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
_HTTP = ("http", "https")  # a WebSocket is no request to upstream
_OTHER_METHOD = "_OTHER"  # as the semantic conventions have it

_logger = logging.getLogger(__name__)


class ActiveRequest(NamedTuple):
    """One request that is open.

    Attributes:
        method: As the client has sent it.
        scheme: `http`, `https`, `ws` or `wss`.
        route: The path with its parameters' names; None where it has not been found yet.
        age_ns: For how long it has been open.
        task: Name of the task that serves it, or empty.
        trace_id: Of the span that is current in that task, 32 digits; empty where there is none, or where
            nobody can look (before CPython 3.12, a span that has begun after the request came).
        span_id: Likewise, 16 digits.
    """

    method: str
    scheme: str
    route: str | None
    age_ns: int
    task: str
    trace_id: str
    span_id: str


def active_requests(
    requests: ActiveRequests, clock: Callable[[], int] = time.monotonic_ns
) -> list[ActiveRequest]:
    """Return the requests that are open, the oldest first; from any thread."""
    now_ns = clock()
    found = []
    for opened in requests.read():
        try:
            line = request_line(opened.request)
            task = opened.task() if opened.task is not None else None
            context = _span_of(opened, task).get_span_context()
            found.append(
                ActiveRequest(
                    *line,
                    age_ns=now_ns - opened.began_ns,
                    task=task.get_name() if task is not None else "",
                    trace_id=f"{context.trace_id:032x}" if context.trace_id else "",
                    span_id=f"{context.span_id:016x}" if context.span_id else "",
                )
            )
        except Exception:
            _logger.debug("A request is not told of", exc_info=True)
    return found


class ActiveRequestMetrics:
    """A source with the number of open requests, as long as nobody else tells it.

    Args:
        requests: Those that are open.
        clock: Wall-clock time, ns since the epoch.
    """

    def __init__(self, requests: ActiveRequests, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._requests = requests
        self._clock = clock
        self._seen: dict[tuple[str, str], int] = {}
        self.start_unix_ns = clock()

    def __repr__(self) -> str:
        return f"<ActiveRequestMetrics of {self._requests!r}>"

    def begin(self) -> None:
        """Say that there are none now: this is a forked child."""
        self._seen = {}
        self.start_unix_ns = self._clock()

    def collect(self) -> list[Reading]:
        """Count them; what there was once is told as 0."""
        if _is_told_by_others():
            self._seen = {}
            return []
        counts = dict.fromkeys(self._seen, 0)
        for opened in self._requests.read():
            try:
                line = request_line(opened.request)
            except Exception:
                continue
            if line.scheme not in _HTTP:
                continue
            key = line.method if line.method in _METHODS else _OTHER_METHOD, line.scheme
            counts[key] = counts.get(key, 0) + 1
        self._seen = counts
        return [
            SumReading(
                names.HTTP_ACTIVE_REQUESTS,
                [
                    ({names.HTTP_REQUEST_METHOD: method, names.URL_SCHEME: scheme}, count)
                    for (method, scheme), count in counts.items()
                ],
            )
        ]


def _is_told_by_others() -> bool:
    """Whether somebody has made an instrument of that name, at the meter provider of the process."""
    meters = getattr(metrics.get_meter_provider(), "_meters", None)
    if not isinstance(meters, dict):
        return False
    begins = f"{names.HTTP_ACTIVE_REQUESTS.name},"
    return any(
        str(made).startswith(begins)
        for meter in list(meters.values())
        for made in list(getattr(meter, "_instrument_ids", ()))
    )


def _span_of(opened: OpenRequest, task: object) -> Span:
    get_context = getattr(task, "get_context", None)  # CPython 3.12
    context = None
    if get_context is not None and variable is not None:
        context = get_context().get(variable)
    context = context or opened.origin
    return context.get(SPAN_KEY, INVALID_SPAN) if isinstance(context, dict) else INVALID_SPAN
