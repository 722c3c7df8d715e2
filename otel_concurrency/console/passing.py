"""A folder for data that goes with the console; where that was killed, the next one removes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "otel-concurrency-data-"


@contextlib.contextmanager
def passing_folder() -> Iterator[Path]:
    """Make a folder for as long as the block runs, and remove those of processes that are gone."""
    base = Path(tempfile.gettempdir())
    for left in base.glob(f"{PREFIX}*"):
        if _is_left(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Tell whether a folder is this user's, and its process gone."""
    pid = folder.name.removeprefix(PREFIX).partition("-")[0]
    try:
        if not pid.isdecimal() or (hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid()):
            return False
        if os.name == "nt":
            return False  # asking is killing there
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
