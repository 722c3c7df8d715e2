"""A console that outlives the command that starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from otel_concurrency.console import registry, require_extra

START_TIMEOUT_S = 60.0
POLL_S = 0.1
# Without the folder where a person works: it may hold a `logging.py`.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from otel_concurrency.cli import main; sys.exit(main())"
)


class ConsoleFailed(Exception):  # noqa: N818  (told to a person as it is)
    """The console ended, or did not answer in time; the message says what it printed."""


def console_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a console."""
    return [sys.executable, "-c", _PROGRAM, "console", *arguments]


def start_in_background(arguments: Sequence[str], check: Callable[[], None]) -> registry.RunningConsole:
    """Start a console in a session of its own, and return when it answers.

    Args:
        arguments: Those of `otel-concurrency console`.
        check: Called while waiting; what it raises ends the wait, and the console.

    Raises:
        ConsoleFailed: It did not come up.
        ImportError: The extra `console` is not installed.
    """
    require_extra()
    record = registry.folder() / "console.log"
    with open(record, "wb") as output:
        process = subprocess.Popen(
            console_command(arguments),
            env=console_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while True:
            check()
            running = registry.find()
            if running is not None and running.pid == process.pid:
                return running
            if process.poll() is not None or time.monotonic() > deadline:
                said = record.read_text(errors="replace").strip()
                what = "ended at once" if process.returncode is not None else "does not answer"
                raise ConsoleFailed(f"the console {what}; it said:\n{said}")
            time.sleep(POLL_S)
    except BaseException:
        process.kill()
        process.wait()
        raise


def console_environment() -> dict[str, str]:
    """Return the environment of a console: ours, without what would instrument it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
