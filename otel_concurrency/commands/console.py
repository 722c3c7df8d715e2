"""`otel-concurrency console`: telemetry of programs on this machine, in the browser."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.arguments import add_ports, port
from otel_concurrency.commands.background import ConsoleFailed, start_in_background
from otel_concurrency.commands.listening import bound, listening
from otel_concurrency.commands.saying import say
from otel_concurrency.console import registry
from otel_concurrency.console.settings import HOST, PORT, ConsoleSettings, is_loopback

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest

_STOP_POLL_S = 0.2
_END_TIMEOUT_S = 20.0


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    console = commands.add_parser(
        "console",
        help="look at what programs send, in the browser",
        description="Receive OTLP over HTTP and gRPC on loopback, keep it, and show it in the browser until "
        "Ctrl-C.",
    )
    console.add_argument(
        "--db", metavar="FILE", help="keep it in a DuckDB file (else it goes with the console)"
    )
    console.add_argument("--open", action="store_true", help="open the browser")
    console.add_argument(
        "--host", default=HOST, help=f"for the pages; beyond loopback a token is asked for ({HOST})"
    )
    console.add_argument(
        "--port",
        type=port,
        default=PORT,
        help=f"for the pages; the next free one if it is taken, 0 for any ({PORT})",
    )
    add_ports(console)
    console.add_argument("--jaeger-url", default="", metavar="URL", help="link traces to this Jaeger")
    console.add_argument("--grafana-url", default="", metavar="URL", help="link traces to this Grafana")
    what = console.add_mutually_exclusive_group()
    what.add_argument("--background", action="store_true", help="start it, and return when it answers")
    what.add_argument("--stop", action="store_true", help="stop the one that runs")
    console.set_defaults(run=run)


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """Serve the console until told to stop."""
    if options.stop:
        return _stop()
    running = registry.find()
    if running is not None and options.db is None:
        say(f"A console runs already: {running.settings.entrance}")
        _open(running.settings, options)
        return 0
    if options.background:
        try:
            started = start_in_background(_again(options), stop.check)
        except ConsoleFailed as failed:
            say(str(failed))
            return 1
        say(f"The console: {started.settings.entrance}")
        _open(started.settings, options)
        return 0
    return _serve(options, stop)


def _serve(options: argparse.Namespace, stop: StopRequest) -> int:
    from otel_concurrency.console import Receiver, Store, StoreError  # noqa: F401  (asked for, they say what is missing)
    from otel_concurrency.console.web import web_server

    token = None if is_loopback(options.host) else os.urandom(16).hex()
    try:
        store = Store(options.db or ":memory:")
    except StoreError as error:
        say(str(error))
        return 1
    with store, listening(store, options) as receiver:
        listener = bound(options.host, options.port, "the pages")
        settings = ConsoleSettings(
            host=options.host,
            port=listener.getsockname()[1],
            http_endpoint=receiver.http_endpoint,
            grpc_endpoint=receiver.grpc_endpoint,
            path=options.db,
            token=token,
            jaeger_url=options.jaeger_url,
            grafana_url=options.grafana_url,
        )
        server = web_server(store, settings, listener)
        server.start()
        try:
            registry.announce(settings)
            _introduce(settings)
            _open(settings, options)
            while not stop.is_made:
                time.sleep(_STOP_POLL_S)
        finally:
            registry.withdraw()
            server.stop()
    return 0


def _introduce(settings: ConsoleSettings) -> None:
    say(f"The console: {settings.entrance}    (Ctrl-C ends it)")
    say("Start a program with: otel-concurrency run python app.py")
    say("or set where it is made one of")
    for protocol, endpoint in (("http/protobuf", settings.http_endpoint), ("grpc", settings.grpc_endpoint)):
        say(f"    OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} OTEL_EXPORTER_OTLP_PROTOCOL={protocol}")


def _stop() -> int:
    import signal

    running = registry.find()
    if running is None:
        say("No console runs.")
        return 0
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_TIMEOUT_S
    while registry.find() is not None:
        if time.monotonic() > deadline:
            say(f"The console, process {running.pid}, does not end.")
            return 1
        time.sleep(_STOP_POLL_S)
    say("The console has ended.")
    return 0


def _open(settings: ConsoleSettings, options: argparse.Namespace) -> None:
    if options.open:
        import webbrowser

        if not webbrowser.open(settings.entrance):
            say("No browser could be opened here.")


def _again(options: argparse.Namespace) -> list[str]:
    """Return the arguments of a console like this one, in the foreground of its own."""
    names = ("host", "port", "http_port", "grpc_port", "jaeger_url", "grafana_url")
    arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    return [*arguments, f"--db={os.path.abspath(options.db)}"] if options.db else arguments
