"""Lets FastAPI's own telemetry speak, once per request; contrib's instrumentor is for what it cannot do.

Its own costs a request less CPU than contrib's middleware does and tells as much. Its operation spans are off
unless `OTEL_PYTHON_CONCURRENCY_HTTP_INNER_SPANS` or the application asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, MutableMapping
from dataclasses import fields
from typing import Any

from opentelemetry.instrumentation.dependencies import DependencyConflict, DependencyConflictError
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.util.http import get_excluded_urls

from otel_concurrency.config import Config, FastAPIOptions

_NEEDED = {"tracing", "metrics", "operation_spans", "exclude"}  # settings that FastAPI must know
_ONLY_CONTRIB = (  # headers on spans: what people set these for, FastAPI does not do
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE",
)


class FastAPITelemetryInstrumentor(BaseInstrumentor):
    """Stands in for contrib's FastAPI instrumentor where FastAPI emits by itself."""

    configuration = FastAPIOptions

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: whether FastAPI can serve shows in its settings, not in its version."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        if not _NEEDED.issubset(_settings_of_fastapi()):
            raise DependencyConflictError(DependencyConflict("fastapi with telemetry of its own"))
        if any(os.environ.get(variable) for variable in _ONLY_CONTRIB):
            raise DependencyConflictError(DependencyConflict("fastapi that puts headers on its spans"))
        from otel_concurrency.hooks.services.fastapi import FastAPITelemetryHook

        options = {field.name: kwargs.get(field.name) for field in fields(FastAPIOptions)}
        config = Config.from_options(options, os.environ)
        settings: dict[str, object] = {"operation_spans": config.http_inner_spans}
        excluded = get_excluded_urls("FASTAPI")
        if excluded._excluded_urls:
            settings["exclude"] = lambda scope: excluded.url_disabled(_url(scope))
        self._hook = FastAPITelemetryHook(settings)
        self._hook.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        self._hook.remove()


def _settings_of_fastapi() -> Collection[str]:
    try:
        from fastapi.telemetry import TelemetryConfig
    except ImportError:  # no FastAPI, or one that leaves telemetry to others
        return ()
    return TelemetryConfig.__annotations__.keys()


def _url(scope: MutableMapping[str, Any]) -> str:
    from starlette.datastructures import URL

    return str(URL(scope=scope).replace(query=""))  # contrib matches without the query as well
