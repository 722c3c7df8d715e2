"""One process: known by id and start time, ended within a bound, never a stranger."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from otel_concurrency.stack import process as processes
from otel_concurrency.stack import stack
from otel_concurrency.stack.errors import StackError
from otel_concurrency.stack.process import Identity, Process
from otel_concurrency.stack.state import State, read_state
from tests.stack.backend import eventually

OBEDIENT = "print('here', flush=True); import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEDIENT + "; signal.pause()"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Process]]:
    """A list of processes that are killed at the end, whatever became of them."""
    rows: list[Process] = []
    yield rows
    for process in rows:
        processes.stop(process, terminate_s=0)


def start(code: str, folder: Path, started: list[Process], name: str = "one") -> Process:
    """Start a program and wait until it has printed its first line."""
    command = [sys.executable, "-c", code]
    process = processes.start(name, command, os.environ, folder, folder / f"{name}.log")
    started.append(process)
    eventually("its first line", lambda: process.log.read_text(encoding="utf-8") == "here\n")
    return process


def dead_owner() -> Identity:
    """Return the identity of a process that has ended and was waited for."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = Identity.of(child.pid)
    child.communicate(b"\n")
    assert identity is not None
    return identity


def test_an_obedient_program_is_terminated(tmp_path: Path, started: list[Process]) -> None:
    """SIGTERM is enough, and afterwards there is nothing left to stop."""
    process = start(OBEDIENT, tmp_path, started)
    assert process.identity.is_alive()
    assert processes.stop(process) == "terminated"
    assert not process.identity.is_alive()
    assert processes.stop(process) == "gone"


def test_a_program_that_ignores_sigterm_is_killed_after_the_bound(
    tmp_path: Path, started: list[Process]
) -> None:
    """However stubborn, it ends."""
    process = start(STUBBORN, tmp_path, started)
    assert processes.stop(process, terminate_s=0.2) == "killed"
    assert not process.identity.is_alive()


def test_a_process_with_the_same_id_and_another_start_is_spared(
    tmp_path: Path, started: list[Process]
) -> None:
    """Ids are reused; the start time tells who it is."""
    process = start(OBEDIENT, tmp_path, started)
    stranger = replace(process, identity=replace(process.identity, started="1"))
    assert not stranger.identity.is_alive()
    assert processes.stop(stranger) == "gone"
    assert process.identity.is_alive()


def test_a_program_that_has_ended_is_not_alive_before_anybody_waits_for_it(
    tmp_path: Path, started: list[Process]
) -> None:
    """A zombie has an id and a start time, and runs no more."""
    process = start(OBEDIENT, tmp_path, started)
    os.kill(process.identity.pid, signal.SIGKILL)
    eventually("it is dead", lambda: not process.identity.is_alive())


def test_a_program_that_cannot_be_started_raises_at_once(tmp_path: Path) -> None:
    """No process, no identity."""
    with pytest.raises(FileNotFoundError):
        processes.start("none", [str(tmp_path / "missing")], {}, tmp_path, tmp_path / "none.log")


def test_a_signal_that_comes_while_it_is_held_back_arrives_afterwards() -> None:
    """An interrupt is late, never lost, and the handlers are the ones from before."""
    before = signal.getsignal(signal.SIGINT)
    steps = []

    def interrupted() -> None:
        with processes.signals_later():
            signal.raise_signal(signal.SIGINT)
            steps.append("noted")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert steps == ["noted"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_state_file_gives_back_what_was_written(tmp_path: Path) -> None:
    """Every field survives, `down` and `status` depend on all of them."""
    process = Process("jaeger", Identity(4242, "77"), tmp_path / "jaeger.log")
    state = State(
        tmp_path,
        {"jaeger": "http://127.0.0.1:1"},
        {"jaeger": ("http://127.0.0.1:1/status",)},
        (process,),
        Identity(1, "0"),
    )
    state.write()
    assert read_state(tmp_path) == state
    state.remove()
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "processes": [{}]}'])
def test_a_damaged_state_file_is_named(tmp_path: Path, text: str) -> None:
    """Whatever is wrong with it, the message says which file and what to do."""
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    with pytest.raises(StackError, match=r"state\.json cannot be read as a state file .*delete it"):
        read_state(tmp_path)


def test_the_stack_of_a_killed_session_is_swept_and_others_are_left(
    tmp_path: Path, started: list[Process]
) -> None:
    """A test run that was killed could not stop its stack; the next one does, and only that."""
    orphan = start(OBEDIENT, tmp_path, started, "orphan")
    owned = start(OBEDIENT, tmp_path, started, "owned")
    unowned = start(OBEDIENT, tmp_path, started, "unowned")
    owners = {"orphan": dead_owner(), "owned": Identity.of(os.getpid()), "unowned": None}
    for process in (orphan, owned, unowned):
        folder = tmp_path / "sessions" / process.name
        folder.mkdir(parents=True)
        State(folder, {}, {}, (process,), owners[process.name]).write()

    told: list[str] = []
    stack.sweep(tmp_path / "sessions", told.append)

    assert told == [f"orphan (pid {orphan.identity.pid}): terminated"]
    alive = {process.name: process.identity.is_alive() for process in (orphan, owned, unowned)}
    assert alive == {"orphan": False, "owned": True, "unowned": True}
    assert sorted(folder.name for folder in (tmp_path / "sessions").iterdir()) == ["owned", "unowned"]


def test_old_logs_are_swept_and_new_ones_kept(tmp_path: Path) -> None:
    """A failed session leaves its logs for whoever looks into it today."""
    for name, age_s in (("today", 60), ("last-week", 7 * 24 * 3600)):
        folder = tmp_path / name
        folder.mkdir()
        os.utime(folder, (time.time() - age_s, time.time() - age_s))
    stack.sweep(tmp_path, pytest.fail)
    assert [folder.name for folder in tmp_path.iterdir()] == ["today"]


def test_sweeping_where_nobody_ever_started_anything(tmp_path: Path) -> None:
    """The first session of all finds no folder."""
    stack.sweep(tmp_path / "sessions", pytest.fail)


def test_usual_ports_are_taken_where_they_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is not, another serves; and without the wish, none of them is touched."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        probe.close()
        usual = {"taken": taken.getsockname()[1], "free": free}
        monkeypatch.setattr(stack, "USUAL_PORTS", usual)
        chosen = stack._free_ports(usual=True)
        assert chosen["free"] == free
        assert chosen["taken"] not in usual.values()
        assert set(stack._free_ports(usual=False).values()) & set(usual.values()) == set()
