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
    r"from (?:multiprocessing|billiard)\.(forkserver|resource_tracker|semaphore_tracker) import main; ?main\("
)


def is_helper_process() -> bool:
    """Whether this is a forkserver, a resource tracker or a semaphore tracker; not so in what they fork."""
    return _kind is not None and os.getpid() == _pid


def is_forkserver() -> bool:
    """Whether this is a forkserver, whose children will run the program; not so in those children."""
    return _kind == "forkserver" and os.getpid() == _pid


def kind_of(command_line: Sequence[str]) -> str | None:
    """Name the helper that a command line starts.

    Args:
        command_line: The interpreter, its flags, and what it was told to do, as in `sys.orig_argv`.

    Returns:
        `forkserver`, `resource_tracker` or `semaphore_tracker`; None for any other process.
    """
    if "-c" not in command_line[1:]:
        return None
    position = command_line.index("-c", 1)
    found = _HELPER.match(" ".join(command_line[position + 1 : position + 2]))
    return found.group(1) if found else None


# Asked once, when the process starts: a child of a forkserver has the same command line and another id.
_kind = kind_of(sys.orig_argv)
_pid = os.getpid()
