"""The embedded OTLP receiver, on the ports asked for or the next free ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from otel_concurrency.commands.saying import say

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.console import Receiver, Store

_PORTS_TRIED = 20


@contextlib.contextmanager
def listening(store: Store, options: argparse.Namespace) -> Iterator[Receiver]:
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
            say(f"port {taken.port} is taken: trying {candidate} for OTLP/{taken.protocol}")
            continue
        try:
            yield receiver
        finally:
            receiver.stop()
        return
    raise SystemExit(f"no free port in {_PORTS_TRIED} tries; --http-port 0 --grpc-port 0 takes any")
