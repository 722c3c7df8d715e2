"""The embedded OTLP receiver, on the ports asked for or the next free ones."""

from __future__ import annotations

import contextlib
import errno
import socket
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


def bound(host: str, port: int, what: str) -> socket.socket:
    """Return a socket that listens on a port, or on the next free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + _PORTS_TRIED, 65536)):
        try:
            return socket.create_server((host, candidate), family=family)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise SystemExit(f"cannot listen on {host}: {error}") from error
            say(f"port {candidate} is taken: trying {candidate + 1} for {what}")
    raise SystemExit(f"no free port in {_PORTS_TRIED} tries for {what}; --port 0 takes any")
