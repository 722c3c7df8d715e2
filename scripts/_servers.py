"""Redis, PostgreSQL and chromium, for the tests that talk to real ones: Debian's own packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_UPDATE = ("apt-get", "-q", "update")
_POSTGRES = Path("/usr/lib/postgresql")


def _has_redis() -> bool:
    return shutil.which("redis-server") is not None


def _has_postgres() -> bool:
    return any(_POSTGRES.glob("*/bin/postgres"))


def _has_chromium() -> bool:
    return shutil.which("chromium") is not None


_PACKAGES = {"redis-server": _has_redis, "postgresql": _has_postgres, "chromium": _has_chromium}


def install_servers(tell: Callable[[str], None]) -> bool:
    """Install the packages that are missing, where we are root on Debian, and say so.

    Args:
        tell: Takes one line of progress.

    Returns:
        Whether all are there; without them the tests that need one skip.
    """
    missing = [package for package, is_there in _PACKAGES.items() if not is_there()]
    if not missing:
        return True
    named = " and ".join(missing)
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        tell(
            f"{named}: missing, and only root on Debian installs that here; the tests that need it will skip"
        )
        return False
    tell(f"installing Debian's {named} (apt-get install)")
    # A package starts its service; ours are started by the tests, on ports of their own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ("apt-get", "-qqy", "--no-install-recommends", "install", *missing)
    for command in (install, _UPDATE, install):
        done = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        if done.returncode == 0 and command is install:
            return True
    tell(f"{named} could not be installed; apt-get said why, above")
    return False
