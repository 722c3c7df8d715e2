"""Tell, from inside a program, which instrumentation it runs under: one JSON object on standard output.

Leans on nothing but asyncio, so that it says the same bare, under ours and under upstream's instrumentor.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import types
from typing import Any

TASKS = 7


async def sanity_child() -> None:
    """Wait once, so that the task is stepped twice."""
    await asyncio.sleep(0)


async def sanity_main() -> dict[str, object]:
    """Run a known number of tasks and look at what `create_task` did to one of them."""
    tasks = [asyncio.get_running_loop().create_task(sanity_child()) for _ in range(TASKS)]
    coroutine = tasks[0].get_coro()
    await asyncio.wait(tasks)
    return {"coroutine_is_proxied": type(coroutine) is not types.CoroutineType}


def probe_way() -> str | None:
    """Return how our probe follows tasks: `proxy`, `watcher` or `pure`; None when it is not there."""
    instrumentors = sys.modules.get("otel_concurrency.instrumentors.tasks")
    hook = instrumentors and instrumentors.AsyncioTaskInstrumentor()._hook
    return None if hook is None else str(hook._probe.way)


def describe() -> dict[str, Any]:
    """Return what is patched, where it comes from, and which probe reads the tasks."""
    create_task = asyncio.BaseEventLoop.create_task
    origin = getattr(getattr(create_task, "__code__", None), "co_filename", None)
    return {
        "create_task_is_patched": origin != asyncio.base_events.__file__,
        "create_task_origin": origin,
        "asyncio_module_is_patched": hasattr(asyncio.create_task, "__wrapped__"),
        "probe_way": probe_way(),
        "release": platform.python_version(),
        **asyncio.run(sanity_main()),
    }


if __name__ == "__main__":
    json.dump(describe(), sys.stdout)
