"""Calls that others wait for only so long, on threads that nobody has to join.

`_thread` rather than `threading`: a signal handler may start a job while the main thread holds one of
`threading`'s own locks. CPython 3.12 and later refuse new threads once the interpreter is on its way out,
which is when `atexit` runs; so spares can be started earlier, and wait for work.

An interpreter beside the main one (mod_wsgi makes them) gets no threads: with one left at its end, CPython
aborts the process.
"""

from __future__ import annotations

import _thread
import logging
import os
import queue
import time
from collections.abc import Callable

from otel_concurrency.hooks.interpreters import is_main_interpreter

_logger = logging.getLogger(__name__)
_jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
_spares = 0
_pid = 0


class Job:
    """A call on a thread of its own; what it raises is logged for debugging and goes no further."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._pending = _thread.allocate_lock()
        self._pending.acquire()

    def wait(self, deadline: float) -> bool:
        """Wait until the call has returned; False if it has not by `deadline` (`time.monotonic()`)."""
        if not self._pending.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        self._pending.release()
        return True

    def run(self) -> None:
        """Make the call here and now."""
        try:
            self._call()
        except Exception:
            _logger.debug("%r failed", self._call, exc_info=True)
        finally:
            self._pending.release()


def start(call: Callable[[], object]) -> Job | None:
    """Start a call on a thread; None where the interpreter has no thread to give any more."""
    global _spares
    if not is_main_interpreter():
        return None
    job = Job(call)
    try:
        _thread.start_new_thread(job.run, ())
    except RuntimeError:
        if not _spares or os.getpid() != _pid:
            return None
        _spares -= 1
        _jobs.put(job)
    return job


def keep_spares(number: int) -> None:
    """Start threads that wait for jobs, while the interpreter still lets us."""
    global _jobs, _pid, _spares
    if os.getpid() != _pid:  # a fork leaves no threads
        _jobs, _pid, _spares = queue.SimpleQueue(), os.getpid(), 0
    while _spares < number and is_main_interpreter():
        _thread.start_new_thread(_work, (_jobs,))
        _spares += 1


def _work(todo: queue.SimpleQueue[Job]) -> None:
    todo.get().run()
