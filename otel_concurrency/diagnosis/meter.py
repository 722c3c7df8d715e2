"""Makes windows: reads what the probes keep, at the end of each window and now and then within it."""

from __future__ import annotations

import time
from collections.abc import Callable

from otel_concurrency.diagnosis.closer import Closer
from otel_concurrency.diagnosis.loop_meter import LoopMeter, StallMeter
from otel_concurrency.diagnosis.process_meter import ForkMeter, ProcessMeter
from otel_concurrency.diagnosis.share_meter import ExecutorMeter, LockMeter, PoolMeter
from otel_concurrency.diagnosis.task_meter import TaskMeter
from otel_concurrency.diagnosis.window import Window
from otel_concurrency.probes.gc_pauses import GcPauses
from otel_concurrency.probes.gil import GilProbe, is_gil_enabled
from otel_concurrency.probes.readers import Readers


class Meter:
    """Reads for one process; all of it is done by one thread.

    Args:
        readers: What can be read.
        stalls: Hears of stalls.
        forks: Hears of forks.
        gil: Counts waits for the GIL.
        gc_pauses: Counts pauses of the garbage collector.
        closer: Looks closer.
        clock: Monotonic time, ns.
    """

    def __init__(
        self,
        readers: Readers,
        *,
        stalls: StallMeter,
        forks: ForkMeter,
        gil: GilProbe,
        gc_pauses: GcPauses,
        closer: Closer,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock = clock
        self._stalls = stalls
        self._forks = forks
        self._loops = LoopMeter(readers)
        self._process = ProcessMeter(readers, gil, gc_pauses)
        self._pools = PoolMeter(readers)
        self._executors = ExecutorMeter(readers)
        self._locks = LockMeter(readers)
        self._tasks = TaskMeter(readers)
        self._closer = closer
        self._began_ns = clock()
        self._began_unix_ns = time.time_ns()
        self._loops.read(1.0)
        self._process.threads(1.0, frozenset())

    @property
    def age_ns(self) -> int:
        """How long the window is by now."""
        return self._clock() - self._began_ns

    def sample(self) -> None:
        """Look how full everything is."""
        self._pools.sample()
        self._executors.sample()
        self._locks.sample()

    def window(self) -> Window:
        """End the window, and begin the next one."""
        now_ns, now_unix_ns = self._clock(), time.time_ns()
        elapsed_s = max(1e-3, (now_ns - self._began_ns) / 1e9)
        began_unix_ns, self._began_unix_ns = self._began_unix_ns, now_unix_ns
        self._began_ns = now_ns
        gil, gc = self._process.gil(), self._process.gc(elapsed_s)
        loops = self._loops.read(elapsed_s)
        tasks, requests = self._tasks.read(elapsed_s)
        forks, fork_threads, fork_thread_names, fork_function = self._forks.take()
        window = Window(
            began_unix_ns,
            now_unix_ns,
            loops=loops,
            stalls=self._stalls.take(),
            gil_wait_mean_s=gil.mean_s,
            gil_wait_max_s=gil.max_s,
            gil_probes=gil.probes,
            has_gil=is_gil_enabled(),
            cpu=self._process.cpu(elapsed_s),
            throttled=self._process.throttled(elapsed_s),
            gc_share=gc.share,
            gc_longest_s=gc.longest_s,
            gc_pauses=gc.pauses,
            threads=self._process.threads(elapsed_s, self._loops.threads),
            tasks=tasks,
            pools=self._pools.read(),
            executors=self._executors.read(),
            locks=self._locks.read(),
            failures=self._process.failures(),
            requests=requests,
            forks=forks,
            fork_threads=fork_threads,
            fork_thread_names=fork_thread_names,
            fork_function=fork_function,
        )
        return self._closer.look(window, self._tasks.serves)
