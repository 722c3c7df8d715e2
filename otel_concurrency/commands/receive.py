"""`otel-concurrency receive`: OTLP until Ctrl-C, and then what came."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.arguments import add_ports, positive
from otel_concurrency.commands.listening import listening
from otel_concurrency.commands.saying import say

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest

MAX_ROWS = 200_000
_STOP_POLL_S = 0.2


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    receive = commands.add_parser(
        "receive",
        help="receive OTLP until Ctrl-C, then print what came",
        description="Receive OTLP over HTTP and gRPC on loopback until Ctrl-C; then print the slowest trace, "
        "what the tasks of each coroutine did, and how much came.",
    )
    add_ports(receive)
    receive.add_argument("--file", metavar="PATH", help="keep it in a DuckDB file (in memory)")
    receive.add_argument(
        "--max-rows",
        type=positive,
        default=MAX_ROWS,
        metavar="N",
        help=f"spans, log records, data points kept, each; the oldest go first ({MAX_ROWS})",
    )
    receive.set_defaults(run=run)


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """Receive until told to stop, and print what came."""
    from otel_concurrency.console import Store, StoreError
    from otel_concurrency.console.overview import draw_overview
    from otel_concurrency.console.text import Style

    try:
        store = Store(options.file or ":memory:", max_rows=options.max_rows)
    except StoreError as error:
        say(str(error))
        return 1
    with store, listening(store, options) as receiver:
        endpoints = {"http/protobuf": receiver.http_endpoint, "grpc": receiver.grpc_endpoint}
        say("Receiving until Ctrl-C. Set one of these where the telemetry is made:")
        for protocol, endpoint in endpoints.items():
            say(f"    OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} OTEL_EXPORTER_OTLP_PROTOCOL={protocol}")
        while not stop.is_made:
            time.sleep(_STOP_POLL_S)
        receiver.stop()
        print(draw_overview(store, Style.of(sys.stdout)))
    return 0
