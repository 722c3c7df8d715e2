"""An HTTP server on a free loopback port, in a thread of its own, that takes its time for each request."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class SlowServer:
    """Answers each request after `seconds`, as many at a time as there are connections.

    Args:
        seconds: How long a request takes.

    Attributes:
        at_work: Requests that it works at.
        most: The most that it ever worked at, at a time.
        arrivals: When each request came, by `time.monotonic()`.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.port = self.at_work = self.most = 0
        self.arrivals: list[float] = []
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-server", daemon=True)

    def __enter__(self) -> SlowServer:
        self._thread.start()
        assert self._is_up.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/"

    def _run(self) -> None:
        self._main = self._loop.create_task(self._listen())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        self._serving: set[asyncio.Task[object]] = set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.arrivals.append(time.monotonic())
                self.at_work += 1
                self.most = max(self.most, self.at_work)
                try:
                    await asyncio.sleep(self.seconds)
                    writer.write(ANSWER)
                    await writer.drain()
                finally:
                    self.at_work -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()
