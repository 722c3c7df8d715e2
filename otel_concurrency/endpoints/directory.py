"""Which programs of this user can be asked: one small file for each process, in a folder of the user's own.

A process writes its file when it begins to listen and removes it at its end; one that was killed leaves it
behind, and whoever looks next removes it. The folder is the user's alone (mode 0700): what somebody else
could write to is not used.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

_NAME = "otel-concurrency"
_PROGRAMS = "programs"
_SUFFIX = ".json"
_MAX_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Entry:
    """One process that can be asked.

    Attributes:
        pid: Its process id.
        url: Where it listens.
        service: Its `service.name`.
        instance: Its `service.instance.id`.
        started: When the process started, as far as that tells it from a later one of the same id; the unit
            is the system's.
        since_unix: When it began to listen, s since the epoch.
        needs_token: Whether it answers only who knows the token.
        command: How it was started.
    """

    pid: int
    url: str
    service: str = ""
    instance: str = ""
    started: str = ""
    since_unix: float = 0.0
    needs_token: bool = False
    command: tuple[str, ...] = ()


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the files are: `$XDG_RUNTIME_DIR`, else the folder for temporary files."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime):
        return Path(runtime) / _NAME / _PROGRAMS
    user = os.getuid() if hasattr(os, "getuid") else environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"{_NAME}-{user}" / _PROGRAMS


class Directory:
    """The files of a folder.

    Args:
        path: The folder; made when the first file is written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or folder()

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"

    def announce(self, entry: Entry) -> None:
        """Write the file of a process.

        Raises:
            OSError: It cannot be written, or not where nobody else can write.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._check()
        self.entries()  # leaves no files of processes that are gone
        target = self._file(entry.pid)
        draft = target.with_suffix(".new")
        draft.unlink(missing_ok=True)
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as out:
            json.dump(asdict(entry), out)
        os.replace(draft, target)

    def withdraw(self, pid: int) -> None:
        """Remove the file of a process; none is fine."""
        try:
            self._file(pid).unlink(missing_ok=True)
        except OSError:
            pass

    def entries(self) -> list[Entry]:
        """Return the processes that are there, by process id; files of others are removed."""
        try:
            self._check()
            names = sorted(os.listdir(self.path))
        except OSError:
            return []
        found = []
        for name in names:
            file = self.path / name
            if not name.endswith(_SUFFIX):
                continue
            entry = _read(file)
            if entry is None or not is_there(entry):
                try:
                    file.unlink(missing_ok=True)
                except OSError:
                    pass
            else:
                found.append(entry)
        return sorted(found, key=lambda each: each.pid)

    def _file(self, pid: int) -> Path:
        return self.path / f"{pid}{_SUFFIX}"

    def _check(self) -> None:
        if not hasattr(os, "getuid"):
            return
        for path in (self.path.parent, self.path):
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise PermissionError(f"others can write to {path}")


def own_entry(url: str, *, service: str = "", instance: str = "", needs_token: bool = False) -> Entry:
    """Return the entry of this process."""
    return Entry(
        pid=os.getpid(),
        url=url,
        service=service,
        instance=instance,
        started=started(os.getpid()),
        since_unix=time.time(),
        needs_token=needs_token,
        command=tuple(argument[:200] for argument in sys.argv[:8]),
    )


def is_there(entry: Entry) -> bool:
    """Whether that process runs: the same, not one that got its id later."""
    if os.name == "nt":
        import psutil

        return bool(psutil.pid_exists(entry.pid))
    try:
        os.kill(entry.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's by now
        return False
    now = started(entry.pid)
    return not entry.started or not now or entry.started == now


def started(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty where `/proc` does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


def _read(file: Path) -> Entry | None:
    try:
        with open(file, "rb") as source:
            content: dict[str, Any] = json.loads(source.read(_MAX_BYTES))
        known = {each.name for each in fields(Entry)}
        values = {name: value for name, value in content.items() if name in known}
        values["command"] = tuple(values.get("command", ()))
        entry = Entry(**values)
        is_sound = isinstance(entry.pid, int) and isinstance(entry.url, str)
        return entry if is_sound and file.name == f"{entry.pid}{_SUFFIX}" else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
