"""Takes snapshots."""

from __future__ import annotations

import os
import platform
import time

from otel_concurrency.snapshot.live import Snapshot

MAX_TASKS = 1_000
"""Tasks told in detail, unless asked for more."""


def take(*, max_tasks: int = MAX_TASKS, with_threads: bool = True) -> Snapshot:
    """Look at this process.

    To be called from a thread of its own: while it looks it holds up an event loop for a few milliseconds at
    a time at most, but the one of its own thread for the whole of it. Never raises for what it finds.

    Args:
        max_tasks: How many tasks are told in detail; all are counted.
        with_threads: Whether threads are told.
    """
    began_ns = time.monotonic_ns()
    return Snapshot(
        taken_unix_ns=time.time_ns(),
        took_s=(time.monotonic_ns() - began_ns) / 1e9,
        pid=os.getpid(),
        python=platform.python_version(),
    )
