"""The command `otel-concurrency`.

What was asked for goes to stdout, progress to stderr. Exit codes: 0 all well, 1 something failed or did not
arrive, 2 wrong usage or something not installed, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from otel_concurrency._version import __version__

if TYPE_CHECKING:
    from types import FrameType

    from otel_concurrency.console import Receiver, Store

HTTP_PORT = 4318
GRPC_PORT = 4317
MAX_ROWS = 200_000
_PORTS_TRIED = 20
_STOP_POLL_S = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: The command line without the program; by default the process's own.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
    stop = _StopRequest()
    with stop.from_signals():
        try:
            code: int = options.run(options, stop)
        except ImportError as error:  # an extra is not installed; the message names it
            _say(str(error))
            return 2
        except KeyboardInterrupt:
            _say("stopped")
            return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-concurrency",
        description="An OpenTelemetry distro for concurrent Python. Instrumenting a program needs none of "
        "these commands: opentelemetry-instrument python app.py",
    )
    parser.add_argument("--version", action="version", version=f"otel-concurrency {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="run an instrumented shop, send it requests, and print what it did with its time",
        description="Start an OTLP receiver and two instrumented services on loopback, send them requests, "
        "and print the slowest trace with its log records, and what the tasks of each coroutine did.",
    )
    demo.add_argument("--requests", type=_positive, default=60, metavar="N", help="how many (60)")
    demo.add_argument("--concurrency", type=_positive, default=4, metavar="N", help="how many at once (4)")
    demo.add_argument("--shop", metavar="FOLDER", help="where examples/shop is (beside the package)")
    _add_ports(demo)
    demo.set_defaults(run=_demo)

    receive = commands.add_parser(
        "receive",
        help="receive OTLP until Ctrl-C, then print what came",
        description="Receive OTLP over HTTP and gRPC on loopback until Ctrl-C; then print the slowest trace, "
        "what the tasks of each coroutine did, and how much came.",
    )
    _add_ports(receive)
    receive.add_argument("--file", metavar="PATH", help="keep it in a DuckDB file (in memory)")
    receive.add_argument(
        "--max-rows",
        type=_positive,
        default=MAX_ROWS,
        metavar="N",
        help=f"spans, log records, data points kept, each; the oldest go first ({MAX_ROWS})",
    )
    receive.set_defaults(run=_receive)
    return parser


def _add_ports(parser: argparse.ArgumentParser) -> None:
    for protocol, port in (("http", HTTP_PORT), ("grpc", GRPC_PORT)):
        parser.add_argument(
            f"--{protocol}-port",
            type=_port,
            default=port,
            metavar="PORT",
            help=f"for OTLP/{protocol}; the next free one if it is taken, 0 for any ({port})",
        )


def _demo(options: argparse.Namespace, stop: _StopRequest) -> int:
    from importlib.util import find_spec
    from pathlib import Path

    absent = [name for name in ("aiohttp", "fastapi", "uvicorn") if find_spec(name) is None]
    if absent:
        _say(f"the demo needs {', '.join(absent)}, not installed: pip install 'otel-concurrency[demo]'")
        return 2
    from otel_concurrency.console import Store
    from otel_concurrency.console.demo import DemoFailed, find_shop, run_demo
    from otel_concurrency.console.overview import draw_overview
    from otel_concurrency.console.text import Style

    try:
        shop = Path(options.shop) if options.shop else find_shop()
        with Store() as store, _listening(store, options) as receiver:
            result = run_demo(
                receiver,
                shop,
                requests=options.requests,
                concurrency=options.concurrency,
                say=_say,
                check=stop.check,
            )
            print(draw_overview(store, Style.of(sys.stdout), tasks=result.tasks))
    except DemoFailed as error:
        _say(f"the demo failed: {error}")
        return 1
    for sentence in result.missing:
        _say(f"missing: {sentence}")
    return 1 if result.missing else 0


def _receive(options: argparse.Namespace, stop: _StopRequest) -> int:
    from otel_concurrency.console import Store, StoreError
    from otel_concurrency.console.overview import draw_overview
    from otel_concurrency.console.text import Style

    try:
        store = Store(options.file or ":memory:", max_rows=options.max_rows)
    except StoreError as error:
        _say(str(error))
        return 1
    with store, _listening(store, options) as receiver:
        endpoints = {"http/protobuf": receiver.http_endpoint, "grpc": receiver.grpc_endpoint}
        _say("Receiving until Ctrl-C. Set one of these where the telemetry is made:")
        for protocol, endpoint in endpoints.items():
            _say(f"    OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} OTEL_EXPORTER_OTLP_PROTOCOL={protocol}")
        while not stop.is_made:
            time.sleep(_STOP_POLL_S)
        receiver.stop()
        print(draw_overview(store, Style.of(sys.stdout)))
    return 0


@contextlib.contextmanager
def _listening(store: Store, options: argparse.Namespace) -> Iterator[Receiver]:
    """Run a receiver on the ports asked for, or the next free ones."""
    from otel_concurrency.console import PortTaken, Receiver

    ports = {"http": options.http_port, "grpc": options.grpc_port}
    for _ in range(_PORTS_TRIED):
        receiver = Receiver(store, http_port=ports["http"], grpc_port=ports["grpc"])
        try:
            receiver.start()
        except PortTaken as taken:
            candidate = taken.port + 1
            while candidate in ports.values():
                candidate += 1
            ports[taken.protocol] = candidate if candidate <= 65535 else 0
            _say(f"port {taken.port} is taken: trying {candidate} for OTLP/{taken.protocol}")
            continue
        try:
            yield receiver
        finally:
            receiver.stop()
        return
    raise SystemExit(f"no free port in {_PORTS_TRIED} tries; --http-port 0 --grpc-port 0 takes any")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port")
    return number


class _StopRequest:
    """Ctrl-C, SIGTERM or a closed terminal, noted now and obeyed where `check` is called.

    Raising from the handler, as Python does by itself, can hit the moment between the start of a process and
    the note that it has to be stopped.
    """

    def __init__(self) -> None:
        self.is_made = False

    def check(self) -> None:
        if self.is_made:
            raise KeyboardInterrupt

    def _make(self, number: int, frame: FrameType | None) -> None:
        self.is_made = True

    @contextlib.contextmanager
    def from_signals(self) -> Iterator[None]:
        known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        heeded = [number for number in known if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
        before = {number: signal.signal(number, self._make) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
