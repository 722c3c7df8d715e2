"""The command `otel-concurrency`; its commands live in `commands/`, one file each.

What was asked for goes to stdout, progress to stderr. Exit codes: 0 all well, 1 something failed or did not
arrive, 2 wrong usage or something not installed, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from otel_concurrency import commands
from otel_concurrency._version import __version__
from otel_concurrency.commands.saying import say
from otel_concurrency.commands.stopping import StopRequest


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
    stop = StopRequest()
    with stop.from_signals():
        try:
            code: int = options.run(options, stop)
        except ImportError as error:  # an extra is not installed; the message names it
            say(str(error))
            return 2
        except KeyboardInterrupt:
            say("stopped")
            return 130
        except BrokenPipeError:  # `… | head`
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it once more at the end
            return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-concurrency",
        description="An OpenTelemetry distro for concurrent Python. Instrumenting a program needs none of "
        "these commands: opentelemetry-instrument python app.py",
    )
    parser.add_argument("--version", action="version", version=f"otel-concurrency {__version__}")
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in commands.NAMES:
        import_module(f"{commands.__name__}.{name}").add_to(added)
    return parser


if __name__ == "__main__":
    sys.exit(main())
