"""A web server in a thread of its own, on a bound socket: ready when started, gone when stopped."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn

SHUTDOWN_GRACE_S = 2


class WebServer:
    """Serves an ASGI application.

    Args:
        application: The application.
        listener: A bound socket; closed with the server.
        name: Of its thread.
        options: Further options of `uvicorn.Config`.
    """

    def __init__(self, application: Any, listener: socket.socket, name: str, **options: Any) -> None:
        config = uvicorn.Config(
            application,
            loop="asyncio",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
            **options,
        )
        self._name = name
        self._listener = listener
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Serve; returns when requests are answered.

        Raises:
            RuntimeError: The server ended before it was ready.
        """
        self._thread.start()
        self._server.settled.wait()
        if not self._server.started:
            self.stop()
            raise RuntimeError(f"the server {self._name} did not start; its log record tells why")

    def stop(self) -> None:
        """Answer what is running, close the port and join the thread; twice is fine."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._server.settled.set()


class _Server(uvicorn.Server):
    """A server that tells when it is ready, or has given up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()
