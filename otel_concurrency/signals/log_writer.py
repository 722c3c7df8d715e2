"""Lines on their way to a file or a stream: whoever has one never waits for the disk, or for a reader.

A bounded queue and one thread that empties it. What finds the queue full is dropped, and counted: of all that
was offered, `written` + `dropped` + `waiting` is exactly as much. Nothing here takes a lock on the way in, so
a signal handler or a finaliser may log; counts are kept thread by thread and added up by whoever asks.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from otel_concurrency.signals import jobs
from otel_concurrency.signals.pipelines import Pipeline

PAUSE_S = 0.005
"""How long lines gather before they are written: no wake-up for each of them."""

MAX_BATCH = 64 * 1024
"""Bytes handed over at a time, a line more or less."""


class Target(Protocol):
    """Where lines go."""

    def write(self, data: bytes, deadline: float | None) -> int:
        """Write, and return how many bytes that were; fewer than given where it failed, or time was up."""
        ...


class LogWriter:
    """Writes lines in a thread of its own, which starts with the first of them.

    Args:
        target: Where they go.
        max_waiting: Lines that may wait; more are dropped.
        notice: Makes the line that tells how many are missing, once the rest is written.
    """

    def __init__(self, target: Target, *, max_waiting: int, notice: Callable[[int], bytes]) -> None:
        self._target = target
        self._notice = notice
        self._max_waiting = max_waiting
        self.begin()

    def __repr__(self) -> str:
        return f"<LogWriter [{self.written} written, {self.dropped} dropped, {self.waiting} waiting]>"

    def begin(self) -> None:
        """Start at nothing: at first, and again in a forked child, where no thread is left."""
        self.written = 0
        self._lost = 0  # could not be written
        self._in_hand = 0
        self._told = 0  # of the dropped
        self._offers: dict[int, list[int]] = {}  # by thread: offered, refused
        self._lines: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._is_idle = True
        self._has_thread = False
        self._is_hurried = False

    @property
    def offered(self) -> int:
        """Lines that were offered until now."""
        return sum(cell[0] for cell in list(self._offers.values()))

    @property
    def dropped(self) -> int:
        """Lines that will never be written."""
        return sum(cell[1] for cell in list(self._offers.values())) + self._lost

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._lines) + self._in_hand

    def has_room(self) -> bool:
        """Count an offer, and say whether it is taken; `put` the line if so, all within one thread."""
        ident = threading.get_ident()
        cell = self._offers.get(ident)
        if cell is None:
            cell = self._offers[ident] = [0, 0]
        cell[0] += 1
        if len(self._lines) >= self._max_waiting:
            cell[1] += 1
            return False
        return True

    def put(self, line: bytes) -> None:
        """Take a line, its end included."""
        self._lines.append(line)
        if self._is_idle:
            self._is_idle = False
            self._awaken()

    def hurry(self) -> None:
        """Let nothing gather any more: the process ends."""
        self._is_hurried = True

    def drain(self, deadline: float) -> bool:
        """Write what waits now, in this thread; False if not all of it is out by `deadline`.

        Args:
            deadline: An instant of `time.monotonic()`.
        """
        left = self.waiting
        if not self._writing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            while left > 0 and self._lines:
                gone = self._write_some(deadline)
                if not gone:
                    return False
                left -= gone
            return True
        finally:
            self._writing.release()

    def _awaken(self) -> None:
        if not self._has_thread:
            self._has_thread = True
            if jobs.start(self._run) is None:  # the interpreter ends: whoever ends it drains
                self._has_thread, self._is_idle = False, True
            return
        try:
            self._wake.release()
        except RuntimeError:  # two at once: it is awake
            pass

    def _run(self) -> None:
        while True:
            if not self._is_hurried:
                time.sleep(PAUSE_S)
            while self._lines:
                with self._writing:
                    self._write_some(None)
            self._is_idle = True
            if not self._lines:  # who came before the flag was up has found it down, and wakes nobody
                self._wake.acquire()

    def _write_some(self, deadline: float | None) -> int:
        """Write a batch, with `_writing` held; return how many lines are out of the way."""
        batch: list[bytes] = []
        size = 0
        while self._lines and size < MAX_BATCH:
            self._in_hand += 1
            line = self._lines.popleft()
            batch.append(line)
            size += len(line)
        data = b"".join(batch)
        done = self._target.write(data, deadline)
        written = len(batch) if done == size else data[:done].count(b"\n")
        self.written += written
        if done < size and deadline is not None:  # time is up: what is left stays, a line's rest included
            self._lines.extendleft(reversed(data[done:].splitlines(keepends=True)))
            self._in_hand = 0
            return written
        self._lost += len(batch) - written
        self._in_hand = 0
        if not self._lines and done == size:
            self._tell_dropped(deadline)
        return len(batch)

    def _tell_dropped(self, deadline: float | None) -> None:
        dropped = self.dropped
        if dropped > self._told:
            notice = self._notice(dropped - self._told)
            if self._target.write(notice, deadline) == len(notice):
                self._told = dropped


class LogLines(Pipeline):
    """A writer as one of the ways out of the process.

    Args:
        writer: What is to be emptied.
    """

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def __repr__(self) -> str:
        return f"<LogLines of {self._writer!r}>"

    @property
    def has_unsent(self) -> bool:
        return self._writer.waiting > 0

    def begin(self) -> None:
        """Leave it to the thread; `wait` lends a hand."""

    def wait(self, deadline: float) -> bool:
        return self._writer.drain(deadline)

    def close(self) -> None:
        self._writer.hurry()

    def release(self) -> None:
        return None

    @property
    def needs_thread(self) -> bool:
        return False
