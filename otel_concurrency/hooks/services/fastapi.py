"""Defaults for the telemetry of FastAPI applications that are made from now on.

FastAPI emits by itself (the package `fastapi.telemetry`, seen in 0.165): a server span, metrics and log
records per request, and a span for each operation inside it. Its settings are per application:
`FastAPI(telemetry={...})`. This hook fills in what an application's own dict leaves open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI

from otel_concurrency.hooks.patch import Patch


class FastAPITelemetryHook:
    """Fills in telemetry settings in `FastAPI.__init__`; what the application says itself stands.

    The class is patched, so that its subclasses and names imported earlier are covered too.

    Args:
        settings: Settings by FastAPI's names, for every application that does not name them.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._settings = dict(settings)
        self._patch = Patch(FastAPI, "__init__", self._fill_in)

    def __repr__(self) -> str:
        return f"<FastAPITelemetryHook {self._patch} {self._settings}>"

    def install(self) -> None:
        """Patch the class; a second call changes nothing."""
        self._patch.install()

    def remove(self) -> None:
        """Put the original back; applications that were made meanwhile keep their settings."""
        self._patch.remove()

    def _fill_in(self, init: Callable[..., None]) -> tuple[Callable[..., None], Callable[[], None]]:
        settings: Mapping[str, object] | None = self._settings

        @functools.wraps(init)
        def init_with_settings(*args: Any, **kwargs: Any) -> None:
            given = kwargs.get("telemetry")
            if settings is not None and (given is None or isinstance(given, Mapping)):
                kwargs["telemetry"] = {**settings, **(given or {})}
            init(*args, **kwargs)

        def silence() -> None:
            nonlocal settings
            settings = None

        return init_with_settings, silence
