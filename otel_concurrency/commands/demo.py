"""`otel-concurrency demo`: an instrumented shop, its slowest trace and its tasks."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.arguments import add_ports, positive
from otel_concurrency.commands.listening import listening
from otel_concurrency.commands.saying import say
from otel_concurrency.commands.showing import show
from otel_concurrency.console import require_extra

if TYPE_CHECKING:
    from otel_concurrency.commands.stopping import StopRequest


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    demo = commands.add_parser(
        "demo",
        help="run an instrumented shop, send it requests, and print what it did with its time",
        description="Start an OTLP receiver and two instrumented services on loopback, send them requests, "
        "and print the slowest trace with its log records, and what the tasks of each coroutine did.",
    )
    demo.add_argument("--requests", type=positive, default=60, metavar="N", help="how many (60)")
    demo.add_argument("--concurrency", type=positive, default=4, metavar="N", help="how many at once (4)")
    demo.add_argument("--shop", metavar="FOLDER", help="where examples/shop is (beside the package)")
    demo.add_argument(
        "--console",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="then show it in the browser until Ctrl-C (in a terminal)",
    )
    add_ports(demo)
    demo.set_defaults(run=run)


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """Run the shop, send it requests, and print what it did."""
    from importlib.util import find_spec
    from pathlib import Path

    absent = [name for name in ("aiohttp", "fastapi", "uvicorn") if find_spec(name) is None]
    if absent:
        say(f"the demo needs {', '.join(absent)}, not installed: pip install 'otel-concurrency[demo]'")
        return 2
    wants_console = sys.stdout.isatty() if options.console is None else options.console
    if wants_console:
        require_extra()
    from otel_concurrency.console import Store
    from otel_concurrency.console.demo import DemoFailed, find_shop, run_demo
    from otel_concurrency.console.overview import draw_overview
    from otel_concurrency.console.text import Style

    try:
        shop = Path(options.shop) if options.shop else find_shop()
        with Store() as store, listening(store, options) as receiver:
            result = run_demo(
                receiver,
                shop,
                requests=options.requests,
                concurrency=options.concurrency,
                say=say,
                check=stop.check,
            )
            print(draw_overview(store, Style.of(sys.stdout), tasks=result.tasks), flush=True)
            for sentence in result.missing:
                say(f"missing: {sentence}")
            if wants_console:
                show(store, receiver, stop)
    except DemoFailed as error:
        say(f"the demo failed: {error}")
        return 1
    if not wants_console:
        say("To look at all of it in the browser: otel-concurrency demo --console")
    return 1 if result.missing else 0
