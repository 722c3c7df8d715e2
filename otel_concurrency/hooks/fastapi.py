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


class FastAPITelemetryHook:
    """Fills in telemetry settings in `FastAPI.__init__`; what the application says itself stands.

    Args:
        settings: Settings by FastAPI's names, for every application that does not name them.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._settings = dict(settings)
        self._original: Callable[..., None] | None = None

    def __repr__(self) -> str:
        return f"<FastAPITelemetryHook [{'installed' if self._original else 'removed'}] {self._settings}>"

    def install(self) -> None:
        """Patch the class, so that its subclasses and names imported earlier are covered too."""
        if self._original is not None:
            return
        target: Any = FastAPI
        init = self._original = target.__init__
        hook = self

        @functools.wraps(init)
        def init_with_settings(app: FastAPI, *args: Any, **kwargs: Any) -> None:
            if hook._original is not None:
                given = kwargs.get("telemetry")
                if given is None or isinstance(given, Mapping):
                    kwargs["telemetry"] = {**hook._settings, **(given or {})}
            init(app, *args, **kwargs)

        self._replacement = init_with_settings
        target.__init__ = init_with_settings

    def remove(self) -> None:
        """Put the original back; a later patch of somebody else stays, with ours silent beneath it."""
        target: Any = FastAPI
        if self._original is not None and vars(target).get("__init__") is self._replacement:
            target.__init__ = self._original
        self._original = None
