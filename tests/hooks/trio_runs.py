"""Ways to run trio that several tests need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import trio


def run_as_guest(afn: Callable[..., Any], *args: Any) -> Any:
    """Run trio on top of an asyncio loop."""

    async def host() -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            afn,
            *args,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        return (await done).unwrap()

    return asyncio.run(host())
