"""A database for examples: answers each command after a while, and a pool of a few connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import redis.asyncio as redis


@asynccontextmanager
async def store(connections: int, answers_after_s: float) -> AsyncIterator[redis.Redis]:
    """Serve, and return a client that waits up to 60 s for one of so many connections."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(4096):
                await asyncio.sleep(answers_after_s)
                writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = redis.BlockingConnectionPool.from_url(
        f"redis://127.0.0.1:{port}?protocol=2",
        max_connections=connections,
        timeout=60,
        lib_name=None,
        lib_version=None,
    )
    try:
        yield redis.Redis(connection_pool=pool)
    finally:
        await pool.disconnect()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)
