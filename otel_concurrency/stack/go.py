"""The Go command: found, asked for its version, and run niced with its output in a log."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_concurrency.stack.errors import StackError

# What the newest of the programs asks for in its go.mod.
OLDEST_GO = (1, 26)

# Where Go's own installer puts it; often not on PATH.
USUAL_GO = Path("/usr/local/go/bin/go")

# Compilers at once. Two keep a small machine usable; a linker alone needs 1 GiB.
COMPILERS = 2

TELL_EVERY_S = 30.0
LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class Go:
    """A Go toolchain with caches of its own.

    Attributes:
        command: The `go` executable.
        version: As it calls itself, e.g. `go1.26.8`.
        work: Folder of the caches and logs.
        tell: Receives one line of progress at a time.
    """

    command: Path
    version: str
    work: Path
    tell: Callable[[str], None]

    def run(self, what: str, *arguments: str, cwd: Path, log: Path, environ: Mapping[str, str] = {}) -> None:
        """Run one `go` subcommand; `what` names it in progress and errors.

        Raises:
            StackError: It failed; the message ends with the last lines of its log.
        """
        command = [str(self.command), *arguments]
        run_niced(what, command, cwd, log, {**self.environ(), **environ}, self.tell)

    def environ(self) -> dict[str, str]:
        """Return the environment that Go runs in: the user's, with caches that we may delete."""
        return {
            **os.environ,
            "PATH": f"{self.command.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "GOCACHE": str(self.work / "go-build"),
            "GOMODCACHE": str(self.work / "go-mod"),
            # -modcacherw: without it the module cache is read-only and cannot be deleted.
            "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw -buildvcs=false".strip(),
            "GOWORK": "off",
            "CGO_ENABLED": "0",
        }


def find_go(work: Path, tell: Callable[[str], None]) -> Go:
    """Return the first Go on PATH or in its usual place that is new enough.

    Raises:
        StackError: There is none.
    """
    seen = []
    for candidate in (shutil.which("go"), USUAL_GO):
        if candidate is None or not os.access(candidate, os.X_OK):
            continue
        answer = subprocess.run([str(candidate), "version"], capture_output=True, text=True, check=False)
        match = re.search(r"\bgo(\d+)\.(\d+)\S*", answer.stdout)
        if match and (int(match[1]), int(match[2])) >= OLDEST_GO:
            return Go(Path(candidate), match[0], work, tell)
        seen.append(f"{candidate} ({match[0] if match else 'no version'})")
    wanted = ".".join(map(str, OLDEST_GO))
    found = f"found only {', '.join(seen)}" if seen else "found none on PATH or in /usr/local/go"
    advice = "Unpack one of the Go project's downloads there."
    raise StackError(f"Go {wanted} or later is needed to build the stack; {found}. {advice}")


def run_niced(
    what: str,
    command: list[str],
    cwd: Path,
    log: Path,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
) -> None:
    """Run `command` at low priority, its output in `log`, telling every half minute that it still runs.

    Raises:
        StackError: It could not start or returned non-zero; names `what` and quotes the end of the log.
    """
    if nice := shutil.which("nice"):
        command = [nice, "-n", "10", *command]
    tell(f"{what} …")
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"\n$ {shlex.join(command)}\n".encode())
        output.flush()
        try:
            child = subprocess.Popen(
                command, cwd=cwd, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        except OSError as error:
            raise StackError(f"{what}: cannot start {command[0]}: {error}") from error
        try:
            code = _wait(child, lambda: tell(f"{what}: {time.monotonic() - began:.0f} s …"))
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if code != 0:
        raise StackError(f"{what}: failed with status {code}. The end of {log}:\n{last_lines(log)}")
    tell(f"{what}: done in {time.monotonic() - began:.0f} s")


def last_lines(log: Path, count: int = LAST_LINES) -> str:
    """Return the last lines of a log, indented, or a word that there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 1024))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(f"    {line[:500]}" for line in lines[-count:]) or "    (empty)"


def _wait(child: subprocess.Popen[bytes], still_running: Callable[[], None]) -> int:
    while True:
        try:
            return child.wait(TELL_EVERY_S)
        except subprocess.TimeoutExpired:
            still_running()
