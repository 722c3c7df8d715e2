"""One client: what has come of its request, and what of the answer has not gone yet."""

from __future__ import annotations

import selectors
import socket
import time

from otel_concurrency.endpoints.request import BadRequestError, Request, take_request
from otel_concurrency.endpoints.response import Response, refusal

HEAD_WITHIN_S = 5.0
"""How long a client may take to send the head of a request."""

IDLE_S = 30.0
"""How long a connection may stay open without a request."""

WRITE_WITHIN_S = 10.0
"""How long a client may take none of an answer."""

ANSWER_WITHIN_S = 120.0
"""How long an answer may take; whoever asks for the next seconds of a trace has to wait for them."""

MAX_REQUESTS = 10_000
"""After so many a connection is closed, as servers do."""

_READ = 65_536
_LINGER_S = 1.0
_LINGER_BYTES = 1_048_576


class Connection:
    """Reads, or works, or writes; one at a time.

    Attributes:
        socket: Of the client, which never blocks.
        fileno: Of the socket, also once that is closed.
        deadline: Until when what it waits for may come, monotonic seconds.
        heard_at: When something came last.
        is_over: Whether there is nothing more to wait for.
    """

    def __init__(self, client: socket.socket) -> None:
        client.setblocking(False)
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # gone already; reading tells
            pass
        self.socket = client
        self.fileno = client.fileno()
        self.heard_at = time.monotonic()
        self.deadline = self.heard_at + HEAD_WITHIN_S
        self.is_over = False
        self._received = bytearray()
        self._unsent = memoryview(b"")
        self._request: Request | None = None
        self._is_working = False
        self._is_last = False
        self._requests = 0
        self._lingers = 0

    def __repr__(self) -> str:
        state = "working" if self._is_working else "writing" if self._unsent else "reading"
        return f"<Connection {self.fileno} [{state}, {self._requests} requests]>"

    @property
    def wants(self) -> int:
        """What of the socket it waits for: `selectors.EVENT_READ`, `EVENT_WRITE`, or 0."""
        if self._is_working:
            return 0
        return selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ

    def transfer(self) -> None:
        """Read or write what is possible now.

        Raises:
            OSError: The client is gone.
        """
        if self._unsent:
            self._write()
        elif self._lingers:
            self._discard()
        elif not self._is_working:
            self._read()

    def next_request(self) -> Request | None:
        """Return the next request, once it is there and the answer before it has gone."""
        if self._unsent or self._is_working or self._is_last or self.is_over:
            return None
        began = bool(self._received)
        try:
            self._request = take_request(self._received)
        except BadRequestError as bad:
            self._request, self._is_last = None, True
            self._is_working = True
            self.respond(refusal(bad.status, str(bad)))
            return None
        if self._request is None:
            if not began:
                self.deadline = time.monotonic() + (IDLE_S if self._requests else HEAD_WITHIN_S)
            return None
        self._requests += 1
        self._is_working = True
        self.deadline = time.monotonic() + ANSWER_WITHIN_S
        return self._request

    def respond(self, response: Response) -> None:
        """Answer the request at hand.

        Raises:
            OSError: The client is gone.
        """
        if not self._is_working:
            return
        request, self._request, self._is_working = self._request, None, False
        if request is None or not request.keep_alive or self._requests >= MAX_REQUESTS:
            self._is_last = True
        encoded = response.encoded(
            keep_alive=not self._is_last, with_body=request is None or request.method != "HEAD"
        )
        self._unsent = memoryview(encoded)
        self.deadline = time.monotonic() + WRITE_WITHIN_S
        self._write()

    def time_is_up(self) -> bool:
        """The deadline has passed; False if that is the end of the connection."""
        if self._is_working or self._unsent or self._lingers or not self._received:
            return False
        self._is_working = self._is_last = True
        try:
            self.respond(refusal(408, f"the head of a request has {HEAD_WITHIN_S:g} s to arrive"))
        except OSError:
            return False
        return not self.is_over

    def close(self) -> None:
        """Let go of the client."""
        self.is_over = True
        self.socket.close()

    def _read(self) -> None:
        try:
            received = self.socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        if not received:
            self.is_over = True
            return
        now = time.monotonic()
        if not self._received:
            self.deadline = now + HEAD_WITHIN_S
        self.heard_at = now
        self._received += received

    def _write(self) -> None:
        try:
            sent = self.socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        if sent:
            self._unsent = self._unsent[sent:]
            self.deadline = time.monotonic() + WRITE_WITHIN_S
        if not self._unsent:
            if self._is_last:
                self._linger()
            else:
                self.deadline = time.monotonic() + (HEAD_WITHIN_S if self._received else IDLE_S)

    def _linger(self) -> None:
        # Closed with something unread, the kernel would take the answer back: read on until the client ends.
        self._received.clear()
        self._lingers = _LINGER_BYTES
        self.deadline = time.monotonic() + _LINGER_S
        self.socket.shutdown(socket.SHUT_WR)
        self._discard()

    def _discard(self) -> None:
        try:
            received = self.socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        self._lingers -= len(received)
        if not received or self._lingers <= 0:
            self.is_over = True
