"""A bounded HTTP load over loopback, from a process of its own: keep-alive connections, exact latencies.

Without a rate every connection sends its next request when the last one is answered (closed loop): that finds
the throughput. With a rate requests are due at fixed times, and a late one counts from when it was due (open
loop): that finds latencies that a stalled server cannot hide.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import functools
import json
import time
from dataclasses import dataclass, field
from typing import cast

from benchmarks.variants import is_installed, new_loop

TICK_S = 0.0005
"""How often due requests are sent in open loop; well below the latencies of interest."""


@dataclass(slots=True)
class Run:
    """One load, and what came of it.

    Attributes:
        path: What to ask for.
        port: Where, on loopback.
        ends_at: When no more requests are sent, on the monotonic clock.
        rate: Requests per second in open loop; 0 for closed loop.
        latencies: Seconds, one per answer.
        errors: Answers other than 200, and connections lost.
        waiting: When the requests were due that found no idle connection.
        idle: Connections that wait for a request, in open loop.
    """

    path: str
    port: int
    ends_at: float = 0.0
    rate: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    waiting: collections.deque[float] = field(default_factory=collections.deque)
    idle: collections.deque[Connection] = field(default_factory=collections.deque)


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on the way."""

    def __init__(self, run: Run, closed: asyncio.Future[None]) -> None:
        self._run = run
        self._closed = closed
        self._received = b""
        self._due_at = 0.0
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self._request = (
            f"GET {run.path} HTTP/1.1\r\nhost: 127.0.0.1:{run.port}\r\nuser-agent: load\r\n\r\n"
        ).encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._run.errors += 1
        if not self._closed.done():
            self._closed.set_result(None)

    def ask(self, due_at: float) -> None:
        """Send a request that was due at this instant."""
        assert self._transport is not None
        self._due_at, self._busy = due_at, True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < content_length(head):
            return
        self._received, self._busy = b"", False
        now = time.monotonic()
        self._run.latencies.append(now - self._due_at)
        if not head.startswith(b"HTTP/1.1 200"):
            self._run.errors += 1
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        run = self._run
        if run.rate:
            if run.waiting:
                self.ask(run.waiting.popleft())
            elif now < run.ends_at:
                run.idle.append(self)
            else:
                self.close()
        elif now < run.ends_at:
            self.ask(now)
        else:
            self.close()

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


def content_length(head: bytes) -> int:
    """Return the body's length from a response's head; 0 without one."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def load(run: Run, connections: int, seconds: float) -> float:
    """Drive the load to its end; return how long it took, in seconds."""
    loop = asyncio.get_running_loop()
    closings: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    opened: list[Connection] = []
    for closing in closings:
        connect = functools.partial(Connection, run, closing)
        _, connection = await loop.create_connection(connect, "127.0.0.1", run.port)
        opened.append(connection)
    started = time.monotonic()
    run.ends_at = started + seconds
    if run.rate:
        run.idle.extend(opened)
        await send_at_rate(run, started)
    else:
        for connection in opened:
            connection.ask(time.monotonic())
    await asyncio.gather(*closings)
    return time.monotonic() - started


async def send_at_rate(run: Run, started: float) -> None:
    """Send each request when it is due; queue its due time while all connections are busy."""
    number = 0
    while (due_at := started + number / run.rate) < run.ends_at:
        now = time.monotonic()
        while due_at <= now and due_at < run.ends_at:
            if run.idle:
                # In turn: a server closes a connection that it hears nothing of, uvicorn's after 5 s.
                run.idle.popleft().ask(due_at)
            else:
                run.waiting.append(due_at)
            number += 1
            due_at = started + number / run.rate
        await asyncio.sleep(min(TICK_S, max(0.0, due_at - time.monotonic())))
    for connection in run.idle:
        connection.close()


def quantile(ordered: list[float], q: float) -> float:
    """Return the value at a quantile of sorted readings."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("port", type=int, help="port on loopback")
    parser.add_argument("--path", default="/work/7", help="what to ask for (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the load (default %(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="at once (default %(default)s)")
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second; 0 for closed loop")
    arguments = parser.parse_args()

    run = Run(arguments.path, arguments.port, rate=arguments.rate)
    loop = new_loop("uvloop" if is_installed("uvloop") else "asyncio")
    took = loop.run_until_complete(load(run, arguments.connections, arguments.seconds))
    run.latencies.sort()
    print(
        json.dumps(
            {
                "requests": len(run.latencies),
                "errors": run.errors,
                "seconds": took,
                "rate": len(run.latencies) / took,
                "p50_s": quantile(run.latencies, 0.5),
                "p99_s": quantile(run.latencies, 0.99),
                "max_s": run.latencies[-1] if run.latencies else 0.0,
            }
        )
    )


if __name__ == "__main__":
    main()
