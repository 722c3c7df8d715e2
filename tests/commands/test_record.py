"""`record`: on demand, on a signal, on a finding; and a file that is valid."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_concurrency.cli import main
from otel_concurrency.timeline.perfetto import trace_of
from tests.commands.answering import DIAGNOSIS, HEALTHY, SNAPSHOT, answering, answers
from tests.timeline.trace_format import errors_of

Captured = pytest.CaptureFixture[str]


def moving(found: Any = lambda: HEALTHY) -> dict[str, Any]:
    """Answer with a snapshot that is 50 ms younger each time."""
    numbers = itertools.count()

    def snapshot() -> Any:
        at_ns = SNAPSHOT.taken_unix_ns + next(numbers) * 50_000_000
        return dataclasses.replace(SNAPSHOT, taken_unix_ns=at_ns).to_data()

    return answers() | {"/debug/snapshot": snapshot, "/debug/diagnose": lambda: found().to_data()}


def test_on_demand(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "trace.json"
    with answering({"/debug/trace": trace_of([SNAPSHOT])}) as (url, asked):
        assert main(["record", url, "--seconds", "2", "--output", str(path)]) == 0
    assert asked == [("/debug/trace", {"seconds": "2.0"})]
    assert errors_of(json.loads(path.read_text())) == []
    out = capsys.readouterr()
    assert out.out == f"{path}\n"
    assert "1 snapshots; https://ui.perfetto.dev opens it" in out.err


def test_on_a_finding(tmp_path: Path, capsys: Captured) -> None:
    path, times = tmp_path / "trace.json", itertools.count()
    content = moving(lambda: DIAGNOSIS if next(times) >= 2 else HEALTHY)
    with answering(content) as (url, _):
        assert main(["record", url, "--on-finding", "--seconds", "0.2", "--output", str(path), "--json"]) == 0
    trace = json.loads(path.read_text())
    assert errors_of(trace) == []
    assert [event["name"] for event in trace["traceEvents"] if event["ph"] == "i"] == ["loop_blocked_io"]
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(path), "events": len(trace["traceEvents"]), "snapshots": 5}


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_on_a_signal(tmp_path: Path) -> None:
    path, before = tmp_path / "trace.json", signal.getsignal(signal.SIGUSR2)
    content, numbers = moving(), itertools.count()
    look = content["/debug/snapshot"]

    def look_and_send() -> Any:
        if next(numbers) == 3:
            os.kill(os.getpid(), signal.SIGUSR2)
        return look()

    with answering(content | {"/debug/snapshot": look_and_send}) as (url, _):
        assert main(["record", url, "--on-signal", "--output", str(path)]) == 0
    trace = json.loads(path.read_text())
    assert errors_of(trace) == []
    assert trace["otherData"]["snapshots"] == 4
    assert signal.getsignal(signal.SIGUSR2) is before


def test_a_program_without_tasks_and_a_file_that_cannot_be_are_told(tmp_path: Path, capsys: Captured) -> None:
    with answering({"/debug/trace": trace_of([])}) as (url, _):
        assert main(["record", url]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == f"{url} has told nothing that could be drawn"
    with answering({"/debug/trace": trace_of([SNAPSHOT])}) as (url, _):
        assert main(["record", url, "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path} cannot be written: Is a directory"


def test_seconds_are_bounded(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["record", "1", "--seconds", "61"])
    assert caught.value.code == 2
    assert "61 is not between 0 and 60 seconds" in capsys.readouterr().err
