"""The console's pages on a port, and in front of them a guard; and what tells how the console is."""

from __future__ import annotations

import hmac
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from otel_concurrency.console import needing_the_extra
from otel_concurrency.console.exchange import exchange_routes
from otel_concurrency.console.serving import WebServer
from otel_concurrency.console.settings import ConsoleSettings, is_loopback
from otel_concurrency.console.store import Store

STATE_PATH = "/console/state"
COOKIE = "otel_concurrency_token"
PAGES = "otel_concurrency.console.pages"

Asgi: TypeAlias = "Callable[[Any, Any, Any], Awaitable[None]]"


def web_server(store: Store, settings: ConsoleSettings, listener: socket.socket) -> WebServer:
    """Return the server of the pages over a store, which is not started yet."""
    ours = Starlette(routes=[Route(STATE_PATH, _state_of(store, settings)), *exchange_routes(store)])
    return WebServer(Guard(_Split(ours, _pages(store, settings)), settings), listener, "console-pages")


def _pages(store: Store, settings: ConsoleSettings) -> Asgi:
    """Return the pages, an ASGI application; what they need is started and ended by its lifespan."""
    if find_spec(PAGES) is None:
        return _placeholder(store)
    with needing_the_extra():
        pages: Asgi = import_module(PAGES).application(store, settings)
    return pages


def _placeholder(store: Store) -> Asgi:
    async def counts(request: Request) -> Response:
        lines = [f"{name}: {count.stored} stored" for name, count in store.counts().items()]
        return PlainTextResponse("\n".join(lines))

    return Starlette(routes=[Route("/", counts)])


def _state_of(store: Store, settings: ConsoleSettings) -> Callable[[Request], Awaitable[Response]]:
    async def state(request: Request) -> Response:
        counts = {name: asdict(count) for name, count in store.counts().items()}
        return JSONResponse({"pid": os.getpid(), "otlp_http": settings.http_endpoint, "counts": counts})

    return state


class _Split:
    """Our own paths to us, all others, and the lifespan, to the pages."""

    def __init__(self, ours: Asgi, pages: Asgi) -> None:
        self._ours = ours
        self._pages = pages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_ours = scope["type"] == "http" and scope["path"].startswith("/console/")
        await (self._ours if is_ours else self._pages)(scope, receive, send)


class Guard:
    """Lets in who may see the pages.

    On loopback any user of a browser here may, but no page of another origin through that browser: `Host`
    has to name this machine (a name that an attacker points at 127.0.0.1 does not), and `Origin`, where it is
    sent, the same. Elsewhere the token has to be shown, once in the URL; that sets a cookie.

    Args:
        application: What is guarded.
        settings: The console's.
    """

    def __init__(self, application: Asgi, settings: ConsoleSettings) -> None:
        self._application = application
        self._token = settings.token
        self._hosts = {"localhost", "127.0.0.1", "::1"} if is_loopback(settings.host) else None
        self._cookie = f"{COOKIE}_{settings.port}"  # cookies do not tell ports apart

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._application(scope, receive, send)
        refusal = self._refusal(HTTPConnection(scope))
        if refusal is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)
        return None

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        host = connection.headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return PlainTextResponse("This console is for this machine: http://localhost", 403)
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("Not for pages of other origins", 403)
        if self._token is None or self._is_token(connection.cookies.get(self._cookie, "")):
            return None
        if self._is_token(connection.query_params.get("token", "")):
            # The token leaves the address bar; where there was none to leave, the answer stays what it is.
            answer = RedirectResponse(str(connection.url.remove_query_params("token").path), 303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return answer
        if self._is_token(connection.headers.get("authorization", "").removeprefix("Bearer ")):
            return None
        return PlainTextResponse("Open the URL that the console printed: it carries the token", 401)

    def _is_token(self, shown: str) -> bool:
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode())


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
