"""One child process that outlives the command which started it.

A process is known by its id *and* its start time: ids are reused, and a signal sent to a reused one ends a
stranger.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

# What a program gets to write its last data before it is killed.
TERMINATE_S = 10.0
KILL_S = 5.0

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process: unique on one machine until it reboots.

    Attributes:
        pid: Process id.
        started: Start time as the system tells it; opaque, only compared.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of a live process, or `None` if there is none or it is a zombie."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    def is_alive(self) -> bool:
        """Tell whether this very process still runs, reaping it first if it was our child and ended."""
        _reap(self.pid)
        return Identity.of(self.pid) == self


@dataclass(frozen=True, slots=True)
class Process:
    """A started program.

    Attributes:
        name: Its name in the stack.
        identity: Which process.
        log: Where its output goes.
    """

    name: str
    identity: Identity
    log: Path

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` reads."""
        return {"name": self.name, **asdict(self.identity), "log": str(self.log)}

    @classmethod
    def from_json(cls, row: Mapping[str, object]) -> Process:
        """Read a row of a state file.

        Raises:
            KeyError, TypeError, ValueError: It is not such a row.
        """
        identity = Identity(int(str(row["pid"])), str(row["started"]))
        return cls(str(row["name"]), identity, Path(str(row["log"])))


def start(name: str, command: list[str], environ: Mapping[str, str], cwd: Path, log: Path) -> Process:
    """Start a program in a session of its own, so that Ctrl-C at our terminal does not reach it.

    Raises:
        OSError: It cannot be started.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # The pid is ours until somebody waits for it, so the identity cannot be a stranger's; a program that
    # ended already has none and is given one that never lives.
    identity = Identity.of(child.pid) or Identity(child.pid, "ended")
    # `is_alive` and `stop` reap by pid; without this, Popen warns at its own collection.
    child.returncode = 0
    return Process(name, identity, log)


def stop(process: Process, terminate_s: float = TERMINATE_S, kill_s: float = KILL_S) -> str:
    """End a process if it is still the one we started.

    Returns:
        What was needed: `gone` (it had ended), `terminated`, `killed`, or `stuck` (not even that helped).
    """
    ways = ((signal.SIGTERM, terminate_s, "terminated"), (signal.SIGKILL, kill_s, "killed"))
    for number, wait_s, outcome in ways:
        if not process.identity.is_alive():
            return "gone"
        try:
            os.kill(process.identity.pid, number)
        except ProcessLookupError:
            return "gone"
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if not process.identity.is_alive():
                return outcome
            time.sleep(POLL_S)
    return "stuck"


@contextmanager
def signals_later() -> Iterator[None]:
    """Hold back SIGINT, SIGTERM and SIGHUP until the block is done.

    Between a program's birth and the note of it, an interrupt would leave a program that nobody knows.
    Blocking the signals in the kernel is no way: the program would inherit that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers can only be set, and only ever run, in the main thread
        return
    arrived: list[int] = []
    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, frame: arrived.append(number)) for number in held]
    try:
        yield
    finally:
        for number, handler in zip(held, before, strict=True):
            signal.signal(number, handler)
        for late in arrived[:1]:
            signal.raise_signal(late)


def _start_time(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        # The name in parentheses may hold anything, so count from the last one: state is field 3, start 22.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    state, _, started = answer.partition(" ")
    return None if not answer or state.startswith("Z") else started.strip()


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # another command started it; init reaps it
