"""The pages as an ASGI application: NiceGUI, with headers that keep a browser to this host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

from fastapi import FastAPI
from nicegui import app, ui

from otel_concurrency.console.pages.address import Address
from otel_concurrency.console.pages.blocks import Links
from otel_concurrency.console.pages.routes import ROUTES, TRACE
from otel_concurrency.console.pages.view import STATIC_PATH, Source, View
from otel_concurrency.console.settings import ConsoleSettings
from otel_concurrency.console.store import Store

Message: TypeAlias = "MutableMapping[str, Any]"
Asgi: TypeAlias = "Callable[[Any, Any, Any], Awaitable[None]]"

STATIC = Path(__file__).parent / "static"
RECONNECT_S = 15.0
POLICY = "; ".join(
    (
        "default-src 'none'",
        # NiceGUI compiles its components in the page.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""No request to any other host, whatever gets into a page."""

HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class _Pages:
    """NiceGUI has one application in a process: it is made once, and shows the source that came last."""

    source: Source
    outer: FastAPI | None = None


def application(store: Store, settings: ConsoleSettings) -> Asgi:
    """Return the pages over a store; its lifespan starts and ends what they need.

    Args:
        store: What they show.
        settings: Where telemetry is received, and where else a trace can be seen.
    """
    links = Links(settings.jaeger_url, settings.grafana_url)
    _Pages.source = Source(store, links, settings.http_endpoint)
    if _Pages.outer is None:
        _Pages.outer = _mount()
    return _with_headers(_Pages.outer)


def _mount() -> FastAPI:
    for route in ROUTES:
        ui.page(route.path, title="otel-concurrency")(_page)
    ui.page(TRACE + "{trace_id}", title="otel-concurrency")(_trace)
    app.add_static_files(STATIC_PATH, STATIC, max_cache_age=0)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    ui.run_with(
        outer,
        title="otel-concurrency",
        favicon=STATIC / "icon.svg",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=RECONNECT_S,
        dark=None,
    )
    return outer


def _page() -> None:
    request = ui.context.client.request
    View(_Pages.source, Address.parse(f"{request.url.path}?{request.url.query}"))


def _trace(trace_id: str) -> None:
    _page()


def _with_headers(inner: Asgi) -> Asgi:
    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await inner(scope, receive, send_with if scope["type"] == "http" else send)

    return guarded
