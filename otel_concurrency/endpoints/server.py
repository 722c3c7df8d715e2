"""HTTP for a few clients, on one thread that no client can hold up.

Sockets never block, every wait has a limit, and there are only so many connections: so neither slow clients
nor mad ones cost more than their sockets. What takes longer to answer is answered on `MAX_WORKERS` further
threads, which are there only meanwhile. A client that sends the next request before it has the answer to the
one before gets them in order.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from otel_concurrency.endpoints.connection import Connection
from otel_concurrency.endpoints.request import Request
from otel_concurrency.endpoints.response import Response, refusal
from otel_concurrency.probes.quiet_thread import QuietThread

MAX_CONNECTIONS = 256
"""Open at once; beyond that the one that has been silent longest makes room."""

MAX_WORKERS = 4
THREAD_NAME = "otel-concurrency-http"

_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RECOVER_S = 0.5
_BACKLOG_AT_ONCE = 64
_REQUESTS_AT_ONCE = 16

_logger = logging.getLogger(__name__)


class Answers(Protocol):
    """What the server serves."""

    def answer(self, request: Request) -> Response | Callable[[], Response]:
        """Answer a request, or return what does so on another thread."""
        ...


class Server:
    """Serves one listening socket.

    Args:
        listener: Bound and listening; the server closes it.
        site: Answers requests.
    """

    def __init__(self, listener: socket.socket, site: Answers) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._site = site
        self._connections: dict[int, Connection] = {}
        self._todo: deque[tuple[Connection, Callable[[], Response]]] = deque()
        self._unfinished: deque[Connection] = deque()
        self._done: deque[tuple[Connection, Response]] = deque()
        self._workers = 0
        self._lock = threading.Lock()
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        for each in (self._bell, self._ear):
            each.setblocking(False)
        self._thread: QuietThread | None = None
        self._is_stopping = False
        self._listens_from = 0.0
        self._selector.register(self._ear, selectors.EVENT_READ, self._hear)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def __repr__(self) -> str:
        state = "running" if self._thread is not None else "stopped"
        return f"<Server [{state}, {len(self._connections)} connections, {self._workers} workers]>"

    @property
    def is_running(self) -> bool:
        """Whether a thread serves."""
        return self._thread is not None

    def start(self) -> None:
        """Serve, from a thread of ours; goes on where `pause` left off.

        Raises:
            RuntimeError: There is no thread to be had any more.
        """
        if self._thread is None:
            self._is_stopping = False
            thread = QuietThread(self._serve, name=THREAD_NAME)
            thread.start()
            self._thread = thread

    def pause(self, within_s: float) -> None:
        """Let the thread end; connections stay, and clients wait."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._is_stopping = True
            self._ring()
            thread.join(within_s)

    def stop(self, within_s: float = 0.3) -> None:
        """Serve no more, and close everything."""
        self.pause(within_s)
        self.close()

    def close(self) -> None:
        """Close every socket: in a forked child this does not touch the parent's."""
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()
        for each in (self._listener, self._bell, self._ear):
            each.close()
        self._selector.close()

    def _serve(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        except Exception:
            if not self._is_stopping:
                _logger.exception("Serving HTTP failed and has ended; the program goes on")

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if isinstance(key.data, Connection):
                self._serve_connection(key.data)
            else:
                key.data()
        for _ in range(len(self._unfinished)):
            connection = self._unfinished.popleft()
            if self._connections.get(connection.fileno) is connection:
                self._serve_connection(connection)
        while self._done:
            connection, response = self._done.popleft()
            if self._connections.get(connection.fileno) is connection:  # not a later one of that number
                connection.respond(response)
                self._serve_connection(connection)
        now = time.monotonic()
        for connection in [each for each in self._connections.values() if each.deadline <= now]:
            if connection.time_is_up():
                self._arrange(connection)
            else:
                self._drop(connection)
        if self._listens_from and now >= self._listens_from:
            self._listens_from = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _patience(self) -> float | None:
        if self._unfinished:
            return 0.0
        ends = [each.deadline for each in self._connections.values()]
        if self._listens_from:
            ends.append(self._listens_from)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _ring(self) -> None:
        try:
            self._bell.send(b"\0")
        except OSError:  # it rings already, or is no more
            pass

    def _hear(self) -> None:
        try:
            self._ear.recv(4096)
        except OSError:
            pass

    def _accept(self) -> None:
        for _ in range(_BACKLOG_AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _NO_FILES:  # it would be told again at once, and again
                    self._selector.unregister(self._listener)
                    self._listens_from = time.monotonic() + _RECOVER_S
                return
            if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
                client.close()
                continue
            connection = Connection(client)
            self._connections[connection.fileno] = connection
            self._arrange(connection)

    def _make_room(self) -> bool:
        idle = [each for each in self._connections.values() if each.wants == selectors.EVENT_READ]
        if idle:
            self._drop(min(idle, key=lambda each: each.heard_at))
        return bool(idle)

    def _serve_connection(self, connection: Connection) -> None:
        try:
            connection.transfer()
            for _ in range(_REQUESTS_AT_ONCE):
                request = connection.next_request()
                if request is None:
                    break
                self._answer(connection, request)
            else:  # others want something, too
                self._unfinished.append(connection)
        except OSError:
            self._drop(connection)
        except Exception:
            _logger.debug("%r failed", connection, exc_info=True)
            self._drop(connection)
        else:
            if connection.is_over:
                self._drop(connection)
            else:
                self._arrange(connection)

    def _answer(self, connection: Connection, request: Request) -> None:
        answer = self._site.answer(request)
        if isinstance(answer, Response):
            connection.respond(answer)
        elif not self._hand_over(connection, answer):
            connection.respond(refusal(503, "no thread is to be had"))

    def _hand_over(self, connection: Connection, call: Callable[[], Response]) -> bool:
        with self._lock:
            self._todo.append((connection, call))
            if self._workers >= MAX_WORKERS:
                return True
            self._workers += 1
        try:
            QuietThread(self._work, name=THREAD_NAME).start()
        except RuntimeError:  # the interpreter is ending
            with self._lock:
                self._workers -= 1
                self._todo.pop()
            return False
        return True

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._todo:
                    self._workers -= 1
                    return
                connection, call = self._todo.popleft()
            try:
                response = call()
            except Exception as error:
                response = refusal(500, f"{type(error).__name__}: {error}"[:500])
            self._done.append((connection, response))
            self._ring()

    def _arrange(self, connection: Connection) -> None:
        """Wait for what the connection needs next: to read, to write, or nothing of the client."""
        known = self._selector.get_map().get(connection.fileno)
        wants = connection.wants
        if known is None:
            if wants:
                self._selector.register(connection.socket, wants, connection)
        elif not wants:
            self._selector.unregister(connection.socket)
        elif known.events != wants:
            self._selector.modify(connection.socket, wants, connection)

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection.fileno, None)
        if self._selector.get_map().get(connection.fileno) is not None:
            self._selector.unregister(connection.socket)
        connection.close()
