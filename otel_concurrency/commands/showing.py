"""The console's pages over a store, until told to stop."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from otel_concurrency.commands.listening import bound
from otel_concurrency.commands.saying import say
from otel_concurrency.console import registry
from otel_concurrency.console.settings import HOST, PORT, ConsoleSettings, is_loopback

if TYPE_CHECKING:
    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.console import Receiver, Store

_STOP_POLL_S = 0.2
_EXPIRE_INTERVAL_S = 60.0


def show(
    store: Store,
    receiver: Receiver,
    stop: StopRequest,
    *,
    host: str = HOST,
    port: int = PORT,
    path: str | None = None,
    jaeger_url: str = "",
    grafana_url: str = "",
    opens: bool = False,
) -> None:
    """Serve the pages, and let other commands find them, until told to stop.

    Args:
        store: What they show.
        receiver: A running one, into that store.
        stop: How to be told.
        host: The address to serve on; a token is asked for where it is not loopback.
        port: The port, or the next free one.
        path: The store's file, where it stays.
        jaeger_url: A Jaeger to link to.
        grafana_url: A Grafana to link to.
        opens: Whether to open the browser.
    """
    from otel_concurrency.console.web import web_server

    listener = bound(host, port, "the pages")
    settings = ConsoleSettings(
        host=host,
        port=listener.getsockname()[1],
        http_endpoint=receiver.http_endpoint,
        grpc_endpoint=receiver.grpc_endpoint,
        path=path,
        token=None if is_loopback(host) else os.urandom(16).hex(),
        jaeger_url=jaeger_url,
        grafana_url=grafana_url,
    )
    server = web_server(store, settings, listener)
    server.start()
    try:
        registry.announce(settings)
        say(f"The console: {settings.entrance}    (Ctrl-C ends it)")
        if opens:
            open_browser(settings)
        last = time.monotonic()
        while not stop.is_made:
            time.sleep(_STOP_POLL_S)
            if time.monotonic() - last > _EXPIRE_INTERVAL_S:
                store.expire()
                last = time.monotonic()
    finally:
        registry.withdraw()
        server.stop()


def open_browser(settings: ConsoleSettings) -> None:
    """Open a browser at a console."""
    import webbrowser

    if not webbrowser.open(settings.entrance):
        say("No browser could be opened here.")
