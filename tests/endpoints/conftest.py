"""A server of our own on loopback, and a raw client of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from otel_concurrency.endpoints import ports
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response
from otel_concurrency.endpoints.server import Server

Answer = Callable[[Request], "Response | Callable[[], Response]"]


class Answering:
    """Answers as a function does."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


@contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """Serve on any port until the end of the block."""
    listener = ports.listen("127.0.0.1", 0)
    server = Server(listener, Answering(answer))
    port = listener.getsockname()[1]
    server.start()
    try:
        yield port
    finally:
        server.stop(within_s=30)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that answers with the path."""
    with serving(lambda request: Response(request.path.encode())) as port:
        yield port


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def exchange(port: int, sent: bytes) -> bytes:
    """Send this on a new connection, and return all that comes until the server closes it."""
    with dial(port) as client:
        try:
            client.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def get(path: str, *headers: str, close: bool = True) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()
