"""Where lines are written to: a stream of the process, or a file."""

from __future__ import annotations

import os
import select
import stat
import time

REOPEN_CHECK_S = 1.0
"""How often a file is looked up by its name: whoever rotates it moves it away."""

_PIPE_BUF = getattr(select, "PIPE_BUF", 512)
_STREAMS = {"stdout": 1, "stderr": 2}


class StreamTarget:
    """A file descriptor that is open already, and stays so.

    Past Python's own buffer: what the program prints keeps an order of its own.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<StreamTarget {self._descriptor}>"

    def write(self, data: bytes, deadline: float | None) -> int:
        """See `log_writer.Target`."""
        return write_all(self._descriptor, data, deadline)


class FileTarget:
    """A file that lines are appended to, by several processes if need be; opened with the first of them.

    Attributes:
        trouble: Why it cannot be written, the last time that it could not.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._next_look = 0.0
        self.trouble: OSError | None = None

    def __repr__(self) -> str:
        return f"<FileTarget {self._path}>"

    def write(self, data: bytes, deadline: float | None) -> int:
        """See `log_writer.Target`."""
        try:
            if time.monotonic() >= self._next_look:
                self._look()
        except OSError as trouble:
            self.trouble = trouble
            return 0
        return write_all(self._descriptor, data, deadline)

    def _look(self) -> None:
        """Open the file that goes by the name now, unless that is the one which is open."""
        if self._descriptor < 0 or self._was_moved():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            opened = os.open(self._path, flags, 0o644)
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = opened
        self._next_look = time.monotonic() + REOPEN_CHECK_S

    def _was_moved(self) -> bool:
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(named, os.fstat(self._descriptor))


def target_of(name: str) -> StreamTarget | FileTarget:
    """Return where the setting says that lines go."""
    return StreamTarget(_STREAMS[name]) if name in _STREAMS else FileTarget(name)


def write_all(descriptor: int, data: bytes, deadline: float | None) -> int:
    """Write as much as is possible until the deadline, without one all of it.

    Returns:
        Bytes written.
    """
    done = 0
    try:
        is_bounded = deadline is not None and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        while done < len(data):
            if is_bounded and not _is_writable(descriptor, deadline):
                break
            # A pipe that can be written takes this much, and the call returns.
            part = data[done : done + _PIPE_BUF] if is_bounded else memoryview(data)[done:]
            try:
                done += os.write(descriptor, part)
            except BlockingIOError:  # somebody made it so: asyncio does with a standard stream that it reads
                if not _is_writable(descriptor, deadline):
                    break
    except OSError:
        pass
    return done


def _is_writable(descriptor: int, deadline: float | None) -> bool:
    if not hasattr(select, "poll"):
        time.sleep(0.001)
        return deadline is None or time.monotonic() < deadline
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    timeout_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1e3
    return bool(poll.poll(timeout_ms))
