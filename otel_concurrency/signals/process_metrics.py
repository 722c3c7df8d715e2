"""This process as metrics: the semantic conventions' `process.*`, and its children and forks."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from otel_concurrency.probes.process import ProcessRow, available_cpus
from otel_concurrency.signals import names
from otel_concurrency.signals.names import Instrument
from otel_concurrency.signals.readings import GaugeReading, Labels, Reading, SumReading

WINDOW_NS = 10_000_000_000
"""How far `process.cpu.utilization` looks back at least, however often and by how many readers it is read."""

_SHORTEST_NS = 100_000_000  # a ratio over less says little
_NOTHING: Labels = {}


class Reader(Protocol):
    """Looks at this process."""

    def started_unix_ns(self) -> int | None:
        """Return when this process started, ns since the epoch; None where nobody can tell."""
        ...

    def read(self) -> ProcessRow:
        """Look once."""
        ...


class ProcessMetrics:
    """A source with what the operating system counts for this process, from its start on.

    Every reading is of the process that asks; a forked child's totals are its own.

    Args:
        reader: Looks at the process.
        left_out: Names the metrics that somebody else emits already, at each collection.
        clock: Monotonic time, ns.
        cpus: How many CPUs this process may run on.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        left_out: Callable[[], Collection[str]] = tuple,
        clock: Callable[[], int] = time.monotonic_ns,
        cpus: Callable[[], int] = available_cpus,
    ) -> None:
        self._reader = reader
        self._left_out = left_out
        self._clock = clock
        self._cpus = cpus
        self._since_unix_ns = time.time_ns()
        self._pid = 0
        self._cpu_times: deque[tuple[int, int]] = deque()
        self._look()

    def __repr__(self) -> str:
        return f"<ProcessMetrics of {self._reader!r}>"

    @property
    def start_unix_ns(self) -> int:
        """When the totals were zero: at the start of this process."""
        return self._reader.started_unix_ns() or self._since_unix_ns

    def collect(self) -> list[Reading]:
        """Look once."""
        row = self._look()
        left_out = self._left_out()
        return [
            reading
            for reading in (*_readings(row), *self._utilization())
            if reading.points and reading.instrument.name not in left_out
        ]

    def _look(self) -> ProcessRow:
        row, now = self._reader.read(), self._clock()
        if row.pid != self._pid:  # we are new, or were forked
            self._pid = row.pid
            self._cpu_times.clear()
            if row.uptime_ns is not None and row.uptime_ns < WINDOW_NS:
                self._cpu_times.append((now - row.uptime_ns, 0))
        if row.user_ns is not None and row.system_ns is not None:
            self._cpu_times.append((now, row.user_ns + row.system_ns))
            # The first is the youngest that is as old as the window: what is older has served.
            while len(self._cpu_times) > 1 and now - self._cpu_times[1][0] >= WINDOW_NS:
                self._cpu_times.popleft()
        return row

    def _utilization(self) -> list[Reading]:
        if not self._cpu_times:
            return []
        (since, before_ns), (now, after_ns) = self._cpu_times[0], self._cpu_times[-1]
        if now - since < _SHORTEST_NS:
            return []
        share = (after_ns - before_ns) / (now - since) / self._cpus()
        return [GaugeReading(names.PROCESS_CPU_UTILIZATION, [(_NOTHING, share)])]


class ForkCount:
    """A source with how often this process was forked since we are there; call `add` in the parent."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self.start_unix_ns = clock()
        self._pid, self._count = os.getpid(), 0

    def add(self) -> None:
        """Count a fork."""
        self._count = self._so_far() + 1

    def collect(self) -> list[Reading]:
        """Read the number."""
        return [SumReading(names.PROCESS_FORKS, [(_NOTHING, self._so_far())])]

    def _so_far(self) -> int:
        if os.getpid() != self._pid:  # the parent's forks are not this process's
            self._pid, self._count = os.getpid(), 0
        return self._count


def _readings(row: ProcessRow) -> list[Reading]:
    uptime: list[tuple[Labels, int | float]] = [] if row.uptime_ns is None else [(_NOTHING, row.uptime_ns)]
    return [
        _sum(names.PROCESS_MEMORY_USAGE, row.resident_bytes),
        _sum(names.PROCESS_MEMORY_VIRTUAL, row.virtual_bytes),
        _sums(names.PROCESS_CPU_TIME, names.CPU_MODE, user=row.user_ns, system=row.system_ns),
        _sum(names.PROCESS_THREAD_COUNT, row.threads),
        _sums(
            names.PROCESS_CONTEXT_SWITCHES,
            names.CONTEXT_SWITCH_TYPE,
            voluntary=row.voluntary_switches,
            involuntary=row.involuntary_switches,
        ),
        _sums(
            names.PROCESS_PAGING_FAULTS,
            names.PAGING_FAULT_TYPE,
            minor=row.minor_faults,
            major=row.major_faults,
        ),
        _sums(names.PROCESS_DISK_IO, names.DISK_IO_DIRECTION, read=row.read_bytes, write=row.written_bytes),
        _sum(names.PROCESS_FILE_DESCRIPTOR_COUNT, row.file_descriptors),
        _sum(names.PROCESS_HANDLE_COUNT, row.handles),
        _sum(names.PROCESS_CHILD_COUNT, row.children),
        GaugeReading(names.PROCESS_UPTIME, uptime),
    ]


def _sum(instrument: Instrument, value: int | None) -> SumReading:
    return SumReading(instrument, [] if value is None else [(_NOTHING, value)])


def _sums(instrument: Instrument, key: str, **values: int | None) -> SumReading:
    return SumReading(
        instrument, [({key: kind}, value) for kind, value in values.items() if value is not None]
    )
