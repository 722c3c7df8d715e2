"""Knows the requests that aiohttp's server, Starlette and FastAPI have open: a hook, and its signals."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.services.http_servers import HttpServerHook
from otel_concurrency.probes.active_requests import ActiveRequests
from otel_concurrency.signals import active_requests as signals
from otel_concurrency.signals.producer import default_producer

_requests: ActiveRequests | None = None


def active_requests() -> list[signals.ActiveRequest]:
    """Return the requests that are open, the oldest first; none where nobody looks after them."""
    return [] if _requests is None else signals.active_requests(_requests)


class HttpServerInstrumentor(BaseInstrumentor):
    """Keeps the list of open requests, and counts them where nobody else does."""

    _hook: HttpServerHook | None = None
    _metrics: signals.ActiveRequestMetrics | None = None
    _forget_fork: Callable[[], None] | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: without these servers nothing happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        global _requests
        origin = getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None)
        requests = _requests = ActiveRequests(origin)
        metrics = self._metrics = signals.ActiveRequestMetrics(requests)

        def begin_in_child() -> None:
            requests.forget()
            metrics.begin()

        self._forget_fork = fork.in_child(begin_in_child)
        self._hook = HttpServerHook(requests)
        self._hook.install()
        default_producer().register(metrics)

    def _uninstrument(self, **kwargs: Any) -> None:
        global _requests
        _requests = None
        if self._metrics is not None:
            default_producer().unregister(self._metrics)
        if self._hook is not None:
            self._hook.remove()
        if self._forget_fork is not None:
            self._forget_fork()
        self._hook = self._metrics = self._forget_fork = None
