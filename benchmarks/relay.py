"""A way to a server that can be closed and made slow: what becomes of a sender whose backend is away."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

CHUNK = 65536


class Relay:
    """Passes TCP connections on to a server on loopback, as long as it is told to.

    Args:
        target: `host:port` of the server.

    Attributes:
        address: `host:port` to connect to.
        delay_s: What each piece of data waits on its way to the server.
        is_used: Set once there is a piece of data for the server.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay_s = 0.0
        self.is_used = threading.Event()
        self._away = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def go_away(self) -> None:
        """End all connections, and each new one at once."""
        with self._lock:
            self._away = True
            ending = list(self._open)
        for one in ending:
            _end(one)

    def come_back(self) -> None:
        """Pass on again."""
        self._away = False

    def close(self) -> None:
        """End all connections and the listener."""
        self.go_away()
        _end(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with near if self._away else contextlib.nullcontext():
                if not self._away:
                    self._pass_on(near)

    def _pass_on(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, 5)
        except OSError:
            near.close()
            return
        with self._lock:
            self._open |= {near, far}
        for source, sink, slowed in ((near, far, True), (far, near, False)):
            threading.Thread(target=self._pump, args=(source, sink, slowed), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, slowed: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if slowed:
                    self.is_used.set()
                    time.sleep(self.delay_s)
                sink.sendall(data)
        _end(sink)
        with self._lock:
            self._open.discard(source)
        source.close()  # the other way's thread closes the sink


@contextlib.contextmanager
def relay(target: str) -> Iterator[Relay]:
    """Run a relay until the end of the block."""
    way = Relay(target)
    try:
        yield way
    finally:
        way.close()


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
