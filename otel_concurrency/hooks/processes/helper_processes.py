"""Whether this process only serves others: a forkserver or resource tracker, multiprocessing's or billiard's.

They are Python interpreters that never run a line of the program, started as `python -c "from
multiprocessing.forkserver import main; main(...)"` (CPython `multiprocessing/forkserver.py` and
`resource_tracker.py`, billiard `forkserver.py` and `semaphore_tracker.py`), with the program's environment.
Telemetry from them would be of a service that does not exist, and a forkserver with threads is no longer safe
to fork.

What a forkserver forks does run the program. Those children inherit the command line, so the answer is tied
to the process that first gave it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

_HELPER = re.compile(
    r"(?:import sys; ?)?"  # CPython 3.15
    r"from (multiprocessing|billiard)\.(forkserver|resource_tracker|semaphore_tracker) import main; ?main\("
)


def is_helper_process() -> bool:
    """Whether this is a forkserver, a resource tracker or a semaphore tracker; not so in what they fork."""
    return _helper is not None and os.getpid() == _pid


def is_forkserver() -> bool:
    """Whether this is a forkserver, whose children will run the program; not so in those children."""
    return _helper is not None and _helper[1] == "forkserver" and os.getpid() == _pid


def package() -> str:
    """Name the package that this helper, or what has forked this process, comes from; empty without one."""
    return _helper[0] if _helper else ""


def helper_of(command_line: Sequence[str]) -> tuple[str, str] | None:
    """Name the helper that a command line starts.

    Args:
        command_line: The interpreter, its flags, and what it was told to do, as in `sys.orig_argv`.

    Returns:
        Its package, and `forkserver`, `resource_tracker` or `semaphore_tracker`; None for any other process.
    """
    if "-c" not in command_line[1:]:
        return None
    position = command_line.index("-c", 1)
    found = _HELPER.match(" ".join(command_line[position + 1 : position + 2]))
    return (found.group(1), found.group(2)) if found else None


# Asked once, when the process starts: a child of a forkserver has the same command line and another id.
_helper = helper_of(sys.orig_argv)
_pid = os.getpid()
