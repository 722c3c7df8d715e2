"""`otel-concurrency console`: telemetry of programs on this machine, in the browser."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.arguments import add_ports, port, positive
from otel_concurrency.commands.background import ConsoleFailed, start_in_background
from otel_concurrency.commands.listening import listening
from otel_concurrency.commands.saying import say
from otel_concurrency.commands.showing import open_browser, show
from otel_concurrency.console import registry
from otel_concurrency.console.passing import passing_folder
from otel_concurrency.console.settings import HOST, PORT

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.console import Receiver

MAX_ROWS = 1_000_000
MAX_MB = 1024
MAX_HOURS = 72
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
    console.add_argument(
        "--max-rows",
        type=positive,
        default=MAX_ROWS,
        metavar="N",
        help=f"spans, log records, data points kept, each; the oldest go first ({MAX_ROWS})",
    )
    console.add_argument(
        "--max-mb",
        type=positive,
        default=MAX_MB,
        metavar="N",
        help=f"the same, as MB of what was sent ({MAX_MB}); on the disk it is less",
    )
    console.add_argument(
        "--max-hours", type=positive, default=MAX_HOURS, metavar="N", help=f"the same, as age ({MAX_HOURS})"
    )
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
        if options.open:
            open_browser(running.settings)
        return 0
    if options.background:
        try:
            started = start_in_background(_again(options), stop.check)
        except ConsoleFailed as failed:
            say(str(failed))
            return 1
        say(f"The console: {started.settings.entrance}")
        if options.open:
            open_browser(started.settings)
        return 0
    return _serve(options, stop)


def _serve(options: argparse.Namespace, stop: StopRequest) -> int:
    from otel_concurrency.console import Store, StoreError

    with contextlib.ExitStack() as stack:
        path = options.db or stack.enter_context(passing_folder()) / "telemetry.duckdb"
        try:
            store = stack.enter_context(
                Store(
                    path,
                    max_rows=options.max_rows,
                    max_bytes=options.max_mb * 2**20,
                    max_age_s=options.max_hours * 3600,
                )
            )
        except StoreError as error:
            say(str(error))
            return 1
        receiver = stack.enter_context(listening(store, options))
        _introduce(receiver)
        show(
            store,
            receiver,
            stop,
            host=options.host,
            port=options.port,
            path=options.db and os.path.abspath(options.db),
            jaeger_url=options.jaeger_url,
            grafana_url=options.grafana_url,
            opens=options.open,
        )
    return 0


def _introduce(receiver: Receiver) -> None:
    say("Start a program with: otel-concurrency run python app.py")
    say("or set where it is made one of")
    endpoints = {"http/protobuf": receiver.http_endpoint, "grpc": receiver.grpc_endpoint}
    for protocol, endpoint in endpoints.items():
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


def _again(options: argparse.Namespace) -> list[str]:
    """Return the arguments of a console like this one, in the foreground of its own."""
    names = ["host", "port", "http_port", "grpc_port", "max_rows", "max_mb", "max_hours"]
    names += ["jaeger_url", "grafana_url"]
    arguments = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    return [*arguments, f"--db={os.path.abspath(options.db)}"] if options.db else arguments
