"""Where a command speaks: what was asked for goes to stdout, progress and trouble to stderr."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Tell of progress or trouble."""
    print(text, file=sys.stderr, flush=True)
