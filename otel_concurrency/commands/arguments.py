"""Arguments that several commands take."""

from __future__ import annotations

import argparse

HTTP_PORT = 4318
GRPC_PORT = 4317


def add_ports(parser: argparse.ArgumentParser) -> None:
    """Add the ports of the embedded OTLP receiver."""
    for protocol, number in (("http", HTTP_PORT), ("grpc", GRPC_PORT)):
        parser.add_argument(
            f"--{protocol}-port",
            type=port,
            default=number,
            metavar="PORT",
            help=f"for OTLP/{protocol}; the next free one if it is taken, 0 for any ({number})",
        )


def positive(text: str) -> int:
    """Read a number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def port(text: str) -> int:
    """Read the number of a port, or 0 for any."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port")
    return number
