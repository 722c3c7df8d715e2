"""What each of `examples/snapshots/` says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import WITH_UVLOOP

EXAMPLES = Path(__file__).parents[2] / "examples" / "snapshots"
TOLD = {
    "deadlock": [
        "in a deadlock: audit, __main__.audit",
        "in a deadlock: transfer, __main__.transfer",
        "waits: 1 gather, 2 lock",
    ],
    "cancel_ignored": [
        "waits: 1 sleep, 1 wait",
        "was asked to end: worker, __main__.worker",
    ],
    "lost_wakeup": [
        "nobody can wake: first, __main__.Client.request, future",
        "waits: 2 future, 1 wait",
    ],
}


@pytest.mark.parametrize("loop", ["asyncio", WITH_UVLOOP])
@pytest.mark.parametrize("example", TOLD)
def test_an_example_shows_what_it_promises(example: str, loop: str) -> None:
    if example == "cancel_ignored" and sys.version_info < (3, 11):
        pytest.skip("tasks keep that from CPython 3.11 on")
    command = [sys.executable, f"{example}.py", loop]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=120, check=False)
    assert sorted(done.stdout.splitlines()) == TOLD[example]
    assert done.stderr == ""
