"""The process as `psutil` sees it, for systems without `/proc`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from otel_concurrency.probes.process import ProcessRow, usage


class PsutilReader:
    """Reads this process through `psutil`; what this system does not tell stays unknown."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def __repr__(self) -> str:
        return f"<PsutilReader of {self._process.pid}>"

    def started_unix_ns(self) -> int | None:
        """Return when this process started, ns since the epoch."""
        started = _tell(self._this().create_time)
        return None if started is None else round(started * 1e9)

    def read(self) -> ProcessRow:
        """Look once."""
        process = self._this()
        with process.oneshot():
            memory = _tell(process.memory_info)
            transferred = _tell(getattr(process, "io_counters", None))
            children = _tell(process.children)
            started_ns = self.started_unix_ns()
            return ProcessRow(
                pid=process.pid,
                started_unix_ns=started_ns,
                uptime_ns=None if started_ns is None else max(0, time.time_ns() - started_ns),
                resident_bytes=getattr(memory, "rss", None),
                virtual_bytes=getattr(memory, "vms", None),
                threads=_tell(process.num_threads),
                read_bytes=getattr(transferred, "read_bytes", None),
                written_bytes=getattr(transferred, "write_bytes", None),
                file_descriptors=_tell(getattr(process, "num_fds", None)),
                handles=_tell(getattr(process, "num_handles", None)),
                children=None if children is None else len(children),
                **usage(),
            )

    def _this(self) -> psutil.Process:
        if self._process.pid != os.getpid():  # we were forked
            self._process = psutil.Process()
        return self._process


def _tell(ask: Callable[[], Any] | None) -> Any:
    try:
        return None if ask is None else ask()
    except (psutil.Error, OSError, NotImplementedError):
        return None
