"""Threads: what each is doing, by its frames and by the kernel."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NamedTuple

from otel_concurrency.probes import quiet_thread, thread_states
from otel_concurrency.probes.choice import held_reader
from otel_concurrency.probes.process import PROC
from otel_concurrency.probes.thread_frames import thread_frames
from otel_concurrency.probes.thread_waits import waits_for
from otel_concurrency.snapshot.details import place_of
from otel_concurrency.snapshot.live import LiveThread
from otel_concurrency.snapshot.live_tasks import FramePlace
from otel_concurrency.snapshot.pace import paced

MAX_THREADS = 200
TOLD_FRAMES = 20


def live_threads(loops: Mapping[int, int | None]) -> tuple[LiveThread, ...]:
    """Return this process's threads, without ours, the telemetry's and the calling one if it is one of these.

    Args:
        loops: Id of the loop that a thread runs, by its `ident`.
    """
    state_of_call = thread_states.call_classifier(platform.machine())
    read = held_reader()
    # All at one instant: what is read from files comes after.
    frames = thread_frames()
    told = {ident: _look(frame) for ident, frame in frames.items()}
    frames.clear()
    found = []
    for native_id, thread in paced(sorted(thread_states.python_threads().items())):
        if thread_states.is_internal(thread) or native_id in quiet_thread.native_ids:
            continue
        if thread.ident == threading.get_ident():
            look, state = _look(sys._getframe()), thread_states.RUNNING
        else:
            look = told.get(thread.ident, _UNSEEN)
            state = _state(_id_now(native_id), state_of_call, read)
        if look.is_idle and state in (thread_states.LOCK_OR_GIL, thread_states.UNKNOWN):
            state, look = thread_states.IDLE_WORKER, look._replace(waits_for="")
        found.append(
            LiveThread(
                thread.ident,
                native_id,
                thread.name,
                thread.daemon,
                state,
                look.waits_for,
                _cpu_s(_id_now(native_id), read),
                loops.get(thread.ident),
                look.frames,
            )
        )
        if len(found) == MAX_THREADS:
            break
    return tuple(found)


class _Look(NamedTuple):
    frames: tuple[FramePlace, ...] = ()
    is_idle: bool = False
    waits_for: str = ""


_UNSEEN = _Look()


def _look(frame: FrameType) -> _Look:
    places: list[FramePlace] = []
    each: FrameType | None = frame
    while each is not None and len(places) < TOLD_FRAMES:
        places.append(place_of(each))
        each = each.f_back
    return _Look(tuple(places), thread_states.waits_for_work(frame), waits_for(frame) or "")


def _id_now(native_id: int) -> int:
    """Return the kernel's id: that of a forked child's only thread is the process's, not the parent's."""
    main = threading.main_thread().native_id
    return os.getpid() if native_id == main and not os.path.exists(f"{PROC}/task/{native_id}") else native_id


def _state(native_id: int, state_of_call: Callable[[bytes], str], read: Callable[[str], bytes | None]) -> str:
    call = read(f"{PROC}/task/{native_id}/syscall")
    if call:
        return state_of_call(call)
    fields = (read(f"{PROC}/task/{native_id}/stat") or b"").rpartition(b")")[2].split()
    states = {b"R": thread_states.RUNNING, b"D": thread_states.SYSCALL}
    return states.get(fields[0], thread_states.UNKNOWN) if fields else thread_states.UNKNOWN


def _cpu_s(native_id: int, read: Callable[[str], bytes | None]) -> float | None:
    fields = (read(f"{PROC}/task/{native_id}/schedstat") or b"").split()
    return int(fields[0]) / 1e9 if fields else None
