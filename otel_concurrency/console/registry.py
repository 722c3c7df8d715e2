"""Where a running console is found: a note in the user's own folder, believed when the console answers."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from otel_concurrency.console.settings import ConsoleSettings

FOLDER = "otel-concurrency"
NOTE = "console.json"
ANSWER_TIMEOUT_S = 5.0
"""A busy console takes its time; one that is gone refuses at once."""


@dataclass(frozen=True, slots=True)
class RunningConsole:
    """A console that runs.

    Attributes:
        pid: Its process.
        settings: What it was started with, and the ports it got.
    """

    pid: int
    settings: ConsoleSettings


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of notes, made if need be; nobody else can write to it.

    Raises:
        PermissionError: Somebody else made it.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    user = os.getuid() if hasattr(os, "getuid") else environ.get("USERNAME", "")
    base = Path(runtime) / FOLDER if runtime else Path(tempfile.gettempdir()) / f"{FOLDER}-{user}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = base.lstat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise PermissionError(f"{base} is not this user's alone; set XDG_RUNTIME_DIR to a folder that is")
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{base} is no folder")
    return base


def announce(settings: ConsoleSettings) -> None:
    """Note that this process is a console that answers now."""
    place = folder()
    content = json.dumps({"pid": os.getpid(), "settings": asdict(settings)})
    draft = place / f"{NOTE}.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    draft.replace(place / NOTE)


def withdraw() -> None:
    """Remove the note if it is this process's."""
    with contextlib.suppress(OSError):
        noted = _noted()
        if noted is not None and noted.pid == os.getpid():
            (folder() / NOTE).unlink()


def find() -> RunningConsole | None:
    """Return the user's console if one runs and answers."""
    noted = _noted()
    return noted if noted is not None and answers(noted) else None


def answers(console: RunningConsole) -> bool:
    """Tell whether a console answers under its URL, and is the process that was noted."""
    request = urllib.request.Request(f"{console.settings.url}console/state")
    if console.settings.token:
        request.add_header("Authorization", f"Bearer {console.settings.token}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=ANSWER_TIMEOUT_S) as response:
            return bool(json.load(response)["pid"] == console.pid)
    except (OSError, ValueError, LookupError, TypeError):
        return False


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Let one process at a time start a console; the others wait for it, and find it then."""
    with open(folder() / "starting.lock", "w") as lock:
        try:
            import fcntl
        except ImportError:  # Windows: two at once may start two
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _noted() -> RunningConsole | None:
    try:
        noted = json.loads((folder() / NOTE).read_text())
        return RunningConsole(int(noted["pid"]), ConsoleSettings(**noted["settings"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
