"""Where requests come in: `Application._handle` of aiohttp's server, `Starlette.__call__` of Starlette.

FastAPI's applications are Starlette's. An application that is mounted in another one is called inside a
request that has been seen. Leans on aiohttp 3.9 to 3.14, `web_app.py`, and Starlette 0.40 to 1.10,
`applications.py`; neither is imported for our sake.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, NamedTuple

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched
from otel_concurrency.probes.active_requests import ActiveRequests

_REQUESTS = ("http", "websocket")


class RequestLine(NamedTuple):
    """What a request asks for.

    Attributes:
        method: As the client has sent it; `GET` of a WebSocket.
        scheme: `http` or `https`, `ws` or `wss`.
        route: The path with its parameters' names; None where it has not been found yet. ASGI applications
            that are mounted in others know their own part.
    """

    method: str
    scheme: str
    route: str | None


class HttpServerHook:
    """Tells of each request that comes and goes.

    Args:
        requests: Knows those that are open.
    """

    def __init__(self, requests: ActiveRequests) -> None:
        self._requests = requests
        self._patches = Patches(
            [
                self._patch("aiohttp.web_app", "Application", "_handle", self._around_aiohttp),
                self._patch("starlette.applications", "Starlette", "__call__", self._around_starlette),
            ]
        )

    def __repr__(self) -> str:
        return f"<HttpServerHook {self._patches}>"

    def install(self) -> None:
        """Patch both, now or when they are imported; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back, last first; requests that are open go on."""
        self._patches.remove()

    def _patch(self, module: str, owner: str, name: str, make: Callable[[Any, Switch], Any]) -> LatePatch:
        def patch(found: ModuleType) -> Patch:
            return Patch(getattr(found, owner), name, switched(make))

        return LatePatch(module, patch, loss="its open requests are not known")

    def _around_aiohttp(
        self, original: Callable[..., Awaitable[Any]], switch: Switch
    ) -> Callable[..., Awaitable[Any]]:
        begin, end = self._requests.begin, self._requests.end

        @functools.wraps(original)
        async def _handle(app: Any, request: Any) -> Any:
            if not switch.is_on:
                return await original(app, request)
            opened = begin(request)
            try:
                return await original(app, request)
            finally:
                end(opened)

        return _handle

    def _around_starlette(
        self, original: Callable[..., Awaitable[Any]], switch: Switch
    ) -> Callable[..., Awaitable[Any]]:
        begin, end = self._requests.begin, self._requests.end

        @functools.wraps(original)
        async def __call__(app: Any, scope: Any, receive: Any, send: Any) -> Any:  # noqa: N807
            if not switch.is_on or scope["type"] not in _REQUESTS or scope.get("app", app) is not app:
                return await original(app, scope, receive, send)
            opened = begin(scope)
            try:
                return await original(app, scope, receive, send)
            finally:
                end(opened)

        return __call__


def request_line(request: Any) -> RequestLine:
    """Read what one of these frameworks calls a request; from any thread."""
    if isinstance(request, dict):  # ASGI
        route = request.get("route")
        return RequestLine(
            request.get("method", "GET"),
            request.get("scheme", "http"),
            getattr(route, "path_format", None) or getattr(route, "path", None),
        )
    resource = getattr(getattr(request._match_info, "route", None), "resource", None)
    return RequestLine(request.method, request.scheme, getattr(resource, "canonical", None))
