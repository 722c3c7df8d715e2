"""How long the kernel kept this process from the CPU because its cgroup had used up its quota.

`cpu.stat` of the process's own cgroup: `throttled_usec` (v2, `Documentation/admin-guide/cgroup-v2.rst`) or
`throttled_time` in ns (v1, `Documentation/scheduler/sched-bwc.rst`). In a container the cgroup's own folder
is usually the root of what is mounted, whatever path `/proc/self/cgroup` names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from otel_concurrency.probes.process import PROC, read_file

MOUNT = "/sys/fs/cgroup"


class CpuSupply:
    """Reads the throttling of this process's cgroup, all its processes together.

    Args:
        proc: The folder of this process.
        mount: Where cgroups are mounted.
    """

    def __init__(self, proc: str = PROC, *, mount: str = MOUNT) -> None:
        self._proc = proc
        self._mount = mount
        self._find()

    def __repr__(self) -> str:
        return f"<CpuSupply of {self._path}>"

    def throttled_ns(self) -> int | None:
        """Return for how long the group was throttled since we are there, ns; None where nobody tells."""
        if os.getpid() != self._pid:  # a forked child begins at zero, maybe in another group
            self._find()
        total_ns = None if self._path is None else _throttled_ns(self._path)
        return None if total_ns is None else max(0, total_ns - self._before_ns)

    def _find(self) -> None:
        self._pid = os.getpid()
        self._path, self._before_ns = None, 0
        for path in self._candidates():
            total_ns = _throttled_ns(path)
            if total_ns is not None:
                self._path, self._before_ns = path, total_ns
                return

    def _candidates(self) -> Iterator[str]:
        for line in (read_file(f"{self._proc}/cgroup") or b"").decode(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                folders = [self._mount, f"{self._mount}/unified"]
            elif "cpu" in controllers.split(","):
                folders = [f"{self._mount}/{controllers}", f"{self._mount}/cpu"]
            else:
                continue
            for folder in folders:
                yield f"{folder}{path.rstrip('/')}/cpu.stat"
                yield f"{folder}/cpu.stat"


def _throttled_ns(path: str) -> int | None:
    for line in (read_file(path) or b"").splitlines():
        key, _, value = line.partition(b" ")
        if key == b"throttled_usec":
            return int(value) * 1_000
        if key == b"throttled_time":
            return int(value)
    return None
