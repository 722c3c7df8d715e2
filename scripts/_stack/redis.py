"""Redis, for the tests of workers that take their work from a real one: Debian's own package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

_INSTALL = ("apt-get", "-qqy", "--no-install-recommends", "install", "redis-server")
_UPDATE = ("apt-get", "-q", "update")


def install_redis(tell: Callable[[str], None]) -> bool:
    """Install the package where it is missing and we are root on Debian, and say so.

    Args:
        tell: Takes one line of progress.

    Returns:
        Whether `redis-server` is there; without it the tests that need it skip.
    """
    if shutil.which("redis-server") is not None:
        return True
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        tell(
            "redis-server is missing, and only root on Debian installs it here: the tests of Celery will skip"
        )
        return False
    tell("installing the Debian package redis-server (apt-get install redis-server)")
    # A package starts its service; ours are started by the tests, on ports of their own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (_INSTALL, _UPDATE, _INSTALL):
        done = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        if done.returncode == 0 and command is _INSTALL:
            return True
    tell("redis-server could not be installed; apt-get said why, above")
    return False
