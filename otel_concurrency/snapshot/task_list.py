"""All tasks that asyncio knows, of every loop, from any thread and without holding up any of them for long.

`asyncio.all_tasks` goes through a weak set in Python, which fails as often as the set changes meanwhile: with
many tasks under load, always. The set's references are copied at once instead, as C does that
(`asyncio/tasks.py`: `_all_tasks`, from 3.12 on `_scheduled_tasks` and `_eager_tasks`). From 3.14 on C keeps
the tasks, in lists (`Modules/_asynciomodule.c`), and tells of all of them at once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from otel_concurrency.probes.thread_frames import thread_frames
from otel_concurrency.snapshot.pace import paced

_WEAK_SETS = ("_all_tasks", "_scheduled_tasks")
_MAX_FRAMES = 200
_TRIES = 5
_KEPT_IN_C = sys.version_info >= (3, 14)


def live_tasks(loops: Iterable[Any] = ()) -> list[Any]:
    """Return the tasks that are not done, no loop left out; those in here live as long as the list.

    Args:
        loops: Those that are known to run; from 3.14 on, the tasks of others are found only where a frame has
            the loop in a variable.
    """
    found: list[Any] = []
    known: set[int] = set()
    for task in paced(_candidates(loops)):
        if task is not None and not _is_done(task) and id(task) not in known:
            known.add(id(task))
            found.append(task)
    return found


def _candidates(loops: Iterable[Any]) -> Iterator[Any]:
    for name in _WEAK_SETS:
        for reference in list(getattr(getattr(asyncio.tasks, name, None), "data", ())):
            yield reference()
    yield from list(getattr(asyncio.tasks, "_eager_tasks", ()))
    if _KEPT_IN_C:
        for loop in {id(loop): loop for loop in (*loops, *_loops_in_frames())}.values():
            yield from asyncio.all_tasks(loop)


def _loops_in_frames() -> list[Any]:
    """Return the loops in the variables of threads; from 3.13 on, looking there leaves nothing behind."""
    found: list[Any] = []
    for _ in range(_TRIES):
        # All frames at once: the innermost one may be over in a moment, and then it leads nowhere.
        for frame in [each for top in thread_frames().values() for each in _outwards(top)]:
            found += [it for it in frame.f_locals.values() if issubclass(type(it), asyncio.AbstractEventLoop)]
        if found:
            break
    try:
        found.append(asyncio.get_running_loop())
    except RuntimeError:
        pass
    return found


def _outwards(frame: FrameType) -> Iterator[FrameType]:
    each: FrameType | None = frame
    for _ in range(_MAX_FRAMES):
        if each is None:
            return
        yield each
        each = each.f_back


def _is_done(task: Any) -> bool:
    try:
        return bool(task.done())
    except Exception:  # of somebody's own class
        return True
