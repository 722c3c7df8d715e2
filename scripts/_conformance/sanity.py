"""Tell, from inside a program, which instrumentation it runs under: one JSON object on standard output.

Leans on nothing but the standard library, so that it says the same bare, under ours and under upstream's
instrumentors.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing.pool
import multiprocessing.process
import os
import platform
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

TASKS = 7
WORK_ITEMS = 5
# Where hooks of ours sit: what they are for, and the classes and modules that they patch.
PLACES: Mapping[str, Sequence[object]] = {
    "tasks": (types.SimpleNamespace(create_task=asyncio.BaseEventLoop.create_task),),
    "waits": (asyncio.mixins._LoopBoundMixin,),
    "event loops": (types.SimpleNamespace(run_forever=asyncio.BaseEventLoop.run_forever),),
    "loop exceptions": (types.SimpleNamespace(call=asyncio.BaseEventLoop.call_exception_handler),),
    "failures": (types.SimpleNamespace(sys=sys.excepthook, unraisable=sys.unraisablehook),),
    "threads": (threading.Thread,),
    "thread pools": (ThreadPoolExecutor,),
    "futures": (Future,),
    "process pools": (ProcessPoolExecutor, sys.modules[ProcessPoolExecutor.__module__]),
    "multiprocessing pools": (multiprocessing.pool.Pool, multiprocessing.pool),
    "processes": (multiprocessing.process.BaseProcess,),
    "subprocesses": (subprocess.Popen, subprocess),
    "exit": (os,),
}


async def sanity_child() -> None:
    """Wait once, so that the task is stepped twice."""
    await asyncio.sleep(0)


async def sanity_main() -> dict[str, object]:
    """Run a known number of tasks and look at what `create_task` did to one of them."""
    tasks = [asyncio.get_running_loop().create_task(sanity_child()) for _ in range(TASKS)]
    coroutine = tasks[0].get_coro()
    await asyncio.wait(tasks)
    return {"coroutine_is_proxied": type(coroutine) is not types.CoroutineType}


def sanity_item() -> None:
    """Do a pool's work."""


def hooks() -> list[str]:
    """Return the `PLACES` in which a function is ours; told by the file that its code comes from."""
    return [name for name, owners in PLACES.items() if any(map(has_ours, owners))]


def has_ours(owner: object) -> bool:
    """Tell whether an attribute of a class or module is a function of ours."""
    values = [getattr(value, "__func__", value) for value in vars(owner).values()]
    files = [getattr(getattr(value, "__code__", None), "co_filename", "") for value in values]
    ours = [os.path.join("otel_concurrency", floor, "") for floor in ("hooks", "probes")]
    return any(folder in file for file in files for folder in ours)


def probe_way() -> str | None:
    """Return how our probe follows tasks: `proxy`, `watcher` or `pure`; None when it is not there."""
    instrumentors = sys.modules.get("otel_concurrency.instrumentors.tasks")
    probe = instrumentors and instrumentors._probe
    return None if probe is None else str(probe.way)


def describe() -> dict[str, Any]:
    """Return what is patched, where it comes from, and which probe reads the tasks."""
    create_task = asyncio.BaseEventLoop.create_task
    origin = getattr(getattr(create_task, "__code__", None), "co_filename", None)
    return {
        "create_task_is_patched": origin != asyncio.base_events.__file__,
        "create_task_origin": origin,
        "asyncio_module_is_patched": hasattr(asyncio.create_task, "__wrapped__"),
        "hooks": hooks(),
        "probe_way": probe_way(),
        "release": platform.python_version(),
        **asyncio.run(sanity_main()),
    }


if __name__ == "__main__":
    with ThreadPoolExecutor(2, thread_name_prefix="sanity") as pool:
        for _ in range(WORK_ITEMS):
            pool.submit(sanity_item)
    json.dump(describe(), sys.stdout)
