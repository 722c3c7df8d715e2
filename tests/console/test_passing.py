"""The folder of a console that keeps nothing: gone with it, and those of killed ones are swept."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from otel_concurrency.console.passing import PREFIX, passing_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="whether a process lives cannot be asked")


def test_it_goes_and_takes_those_of_dead_processes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    left, living, other = (
        tmp_path / f"{PREFIX}{name}" for name in (f"{int(dead.stdout)}-x", f"{os.getpid()}-x", "of-somebody")
    )
    for folder in (left, living, other):
        folder.mkdir()
        (folder / "data").write_text("x")
    with passing_folder() as mine:
        (mine / "data").write_text("x")
        assert sorted(tmp_path.iterdir()) == sorted([mine, living, other])
    assert sorted(tmp_path.iterdir()) == sorted([living, other])
