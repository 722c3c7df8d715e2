"""What the operating system counts for this process: memory, CPU time, switches, faults, files, children.

Read from `/proc/self` (Linux, `proc(5)`), `getrusage(2)` and `times(2)`. All tell of the process that asks,
so a forked child hears of itself. `getrusage` sums up all threads, ended ones too, where the switches in
`/proc/self/status` are those of the main thread alone.

A program that closes a standard stream puts another file in its place, or the same one back. What we opened
meanwhile would be there: replaced by theirs, which we would close. So until then nothing is opened, or told.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PROC = "/proc/self"
MAX_THREADS_READ = 200
"""With more threads than this, child processes are not counted: they are listed thread by thread."""

_READ_SIZE = 65_536
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One look at this process. None where this system does not tell.

    Attributes:
        pid: Its id at the time of the look.
        started_unix_ns: When it started, ns since the epoch; the same in every look at one process.
        uptime_ns: For how long it has been running.
        user_ns: CPU time in its own code, threads that ended included.
        system_ns: CPU time in the kernel on its behalf.
        resident_bytes: Physical memory in use.
        virtual_bytes: Address space.
        threads: Threads of the operating system, whoever made them.
        voluntary_switches: Times that a thread of it gave up its CPU.
        involuntary_switches: Times that one was taken away.
        minor_faults: Page faults without reading from disk.
        major_faults: Page faults that read from disk.
        read_bytes: Bytes fetched from storage.
        written_bytes: Bytes sent to storage.
        file_descriptors: Open file descriptors.
        handles: Open handles; Windows only.
        children: Child processes, ended ones that nobody has waited for included.
    """

    pid: int
    started_unix_ns: int | None = None
    uptime_ns: int | None = None
    user_ns: int | None = None
    system_ns: int | None = None
    resident_bytes: int | None = None
    virtual_bytes: int | None = None
    threads: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    file_descriptors: int | None = None
    handles: int | None = None
    children: int | None = None


class ProcReader:
    """Reads Linux's `/proc`; what cannot be opened there stays unknown.

    Args:
        proc: The folder of this process.
        boot_clock: Time since boot, ns, by the clock that start times are given in.
        wall_clock: ns since the epoch.
    """

    def __init__(
        self,
        proc: str = PROC,
        *,
        boot_clock: Callable[[], int] | None = None,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._proc = proc
        self._boot_clock = boot_clock or _boot_ns
        self._wall_clock = wall_clock
        self._birth: tuple[int, int | None] = (0, None)

    def __repr__(self) -> str:
        return f"<ProcReader of {self._proc}>"

    @property
    def is_readable(self) -> bool:
        """Whether there is anything to read."""
        return os.access(f"{self._proc}/stat", os.R_OK)

    def started_unix_ns(self) -> int | None:
        """Return when this process started, ns since the epoch."""
        pid = os.getpid()
        if self._birth[0] != pid:
            uptime_ns = self._uptime_ns(_stat_fields(read_file(f"{self._proc}/stat")))
            if uptime_ns is None:
                return None
            self._birth = (pid, self._wall_clock() - uptime_ns)
        return self._birth[1]

    def read(self) -> ProcessRow:
        """Look once."""
        proc = self._proc
        stat = _stat_fields(read_file(f"{proc}/stat"))
        virtual_bytes, resident_bytes = _memory(read_file(f"{proc}/statm"))
        read_bytes, written_bytes = _io(read_file(f"{proc}/io"))
        return ProcessRow(
            pid=os.getpid(),
            started_unix_ns=self.started_unix_ns(),
            uptime_ns=self._uptime_ns(stat),
            resident_bytes=resident_bytes,
            virtual_bytes=virtual_bytes,
            threads=int(stat[_NUM_THREADS]) if stat else None,
            read_bytes=read_bytes,
            written_bytes=written_bytes,
            file_descriptors=_count_files(f"{proc}/fd"),
            children=_count_children(f"{proc}/task"),
            **usage(),
        )

    def _uptime_ns(self, stat: list[bytes]) -> int | None:
        if not stat:
            return None
        started_ns = int(stat[_START_TIME]) * _SECOND // os.sysconf("SC_CLK_TCK")
        uptime_ns = self._boot_clock() - started_ns
        return uptime_ns if uptime_ns >= 0 else None


def usage() -> dict[str, int]:
    """Return CPU times, switches and faults, as fields of a row; as many as this system tells."""
    if resource is None:
        times = os.times()
        return {"user_ns": round(times.user * 1e9), "system_ns": round(times.system * 1e9)}
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "user_ns": round(used.ru_utime * 1e9),
        "system_ns": round(used.ru_stime * 1e9),
        "voluntary_switches": used.ru_nvcsw,
        "involuntary_switches": used.ru_nivcsw,
        "minor_faults": used.ru_minflt,
        "major_faults": used.ru_majflt,
    }


def available_cpus() -> int:
    """Return how many CPUs this process may run on; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def read_file(path: str) -> bytes | None:
    """Return what a small file holds, None where it cannot be read: gone, closed to us, never there."""
    if not _streams_are_there():
        return None
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(file, _READ_SIZE)
    except OSError:
        return None
    finally:
        os.close(file)


def list_folder(path: str) -> list[str]:
    """Return the names in a folder.

    Raises:
        OSError: It cannot be listed, or not now.
    """
    if not _streams_are_there():
        raise OSError(errno.EAGAIN, "a standard stream is being replaced")
    return os.listdir(path)


def _is_open(file: int) -> bool:
    try:
        os.get_inheritable(file)  # keeps the GIL, unlike `os.fstat`
    except OSError:
        return False
    return True


_STREAMS = tuple(file for file in range(3) if _is_open(file))  # what was never there is not coming back


def _streams_are_there() -> bool:
    return all(map(_is_open, _STREAMS))


# Fields of `stat` after the name, which may hold blanks and brackets; `proc(5)` counts from 1, the pid.
_NUM_THREADS = 20 - 3
_START_TIME = 22 - 3


def _stat_fields(text: bytes | None) -> list[bytes]:
    fields = (text or b"").rpartition(b")")[2].split()
    return fields if len(fields) > _START_TIME else []


def _memory(text: bytes | None) -> tuple[int | None, int | None]:
    pages = (text or b"").split()
    if len(pages) < 2:
        return None, None
    page = os.sysconf("SC_PAGE_SIZE")
    return int(pages[0]) * page, int(pages[1]) * page


def _io(text: bytes | None) -> tuple[int | None, int | None]:
    lines = (line.split(b": ") for line in (text or b"").splitlines())
    counts = {parts[0]: int(parts[1]) for parts in lines if len(parts) == 2}
    return counts.get(b"read_bytes"), counts.get(b"write_bytes")


def _count_files(folder: str) -> int | None:
    try:
        # Linux 6.2 and later tell the number as the folder's size; listing takes time per file.
        return os.stat(folder).st_size or len(list_folder(folder)) - 1  # the listing itself is one
    except OSError:
        return None


def _count_children(tasks: str) -> int | None:
    try:
        threads = list_folder(tasks)
    except OSError:
        return None
    if len(threads) > MAX_THREADS_READ:
        return None
    lists = [read_file(f"{tasks}/{thread}/children") for thread in threads]
    found = [each for each in lists if each is not None]  # a thread may have ended meanwhile
    return sum(len(each.split()) for each in found) if found else None


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
