"""Requests ask another service, which answers twenty times as slowly from some moment on.

You will see: `io_wait`, as information: the loop has nothing to do meanwhile.
"""

from __future__ import annotations

import asyncio
import time

from running import run

FAST_S, SLOW_S = 0.01, 0.2


async def main() -> None:
    began = time.monotonic()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await asyncio.sleep(FAST_S if time.monotonic() - began < 4 else SLOW_S)
        writer.write(b"done\n")
        writer.close()

    async def handle(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"please\n")
        await reader.readline()
        writer.close()

    async def keep_asking(port: int) -> None:
        while time.monotonic() - began < 8:
            await asyncio.create_task(handle(port))
            await asyncio.sleep(0.1)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(keep_asking(port) for _ in range(40)))
    server.close()


run(main())
