"""`otel-concurrency stack` as a person meets it: its words, its exit statuses, and what it leaves behind.

Stand-ins take the place of the programs, so nothing needs to be built.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_concurrency.cli import main
from otel_concurrency.stack.errors import StackError
from otel_concurrency.stack.process import Identity
from otel_concurrency.stack.state import State, read_state
from tests.stack.backend import eventually
from tests.stack.fakes import install_programs
from tests.stack.places import TREE

SCRIPT = [sys.executable, str(TREE / "scripts" / "stack")]
STARTED = ["jaeger", "prometheus", "loki", "otelcol"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("OTEL_CONCURRENCY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(cache: Path) -> Iterator[Path]:
    """A cache with stand-ins in place of the binaries; whatever still runs at the end is stopped."""
    install_programs(cache / "stack")
    yield cache
    run("down")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end."""
    return subprocess.run([*SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False)


def running(cache: Path) -> State:
    """Return what the state file says is running."""
    state = read_state(cache / "stack" / "run")
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required"),
        (["sideways"], "invalid choice"),
        (["up", "now"], "unrecognized arguments: now"),
        (["run"], "required"),
        (["down", "--state"], "expected one argument"),
    ],
)
def test_a_wrong_command_line_is_refused_with_its_reason(
    cache: Path, arguments: list[str], complaint: str
) -> None:
    """Status 2 and a line that tells what was wrong, as every command line does."""
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_help_tells_every_command(cache: Path) -> None:
    """The first thing that anybody types."""
    result = run("--help")
    assert result.returncode == 0
    assert [word for word in ("build", "up", "down", "status", "run --") if word not in result.stdout] == []


@pytest.mark.parametrize("arguments", [["up", "--no-build"], ["run", "--no-build", "--", "true"]])
def test_without_binaries_it_says_how_to_get_them(cache: Path, arguments: list[str]) -> None:
    """Standard output stays empty, so that `eval` of it does nothing."""
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("stack: not built yet: otelcol ")
    assert result.stderr.endswith("Build once with: otel-concurrency stack build\n")
    assert not cache.exists()


def test_up_builds_what_is_missing_and_what_it_starts(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says first that this takes a while; why it fails, it says in one line."""
    asked: list[object] = []

    def build(stack: Path, tell: object, *, only: object) -> None:
        asked.append(only)
        raise StackError("Go 1.26 or later is needed")

    monkeypatch.setattr("otel_concurrency.stack.build.build", build)
    assert main(["stack", "up"]) == 1
    output = capsys.readouterr()
    assert asked == [frozenset(STARTED)]
    assert output.out == ""
    assert "not built yet: otelcol, prometheus, jaeger, loki." in output.err
    assert output.err.endswith("stack: Go 1.26 or later is needed\n")


def test_status_of_nothing(cache: Path) -> None:
    """Each program is named with what is missing, and the status tells scripts."""
    result = run("status")
    assert (result.returncode, result.stderr) == (3, "")
    programs = ["otelcol", "prometheus", "promtool", "jaeger", "loki"]
    assert [line.split()[0] for line in result.stdout.splitlines()] == programs
    assert [line.endswith("not built") for line in result.stdout.splitlines()] == [True] * 5


def test_down_of_nothing_is_no_error(cache: Path) -> None:
    """A clean-up step may run twice."""
    result = run("down")
    assert (result.returncode, result.stdout) == (0, "")
    assert "nothing to stop" in result.stderr


def test_up_prints_exports_and_down_stops_exactly_what_up_started(built: Path) -> None:
    """Standard output is for `eval`; the processes that it speaks of live until `down`."""
    result = run("up")
    assert result.returncode == 0, result.stderr
    state = running(built)
    exports = dict(line.removeprefix("export ").split("=", 1) for line in result.stdout.splitlines())
    assert exports == state.exports()
    assert exports["OTEL_EXPORTER_OTLP_ENDPOINT"].startswith("http://127.0.0.1:")

    assert [process.name for process in state.processes] == STARTED
    assert [process.identity.is_alive() for process in state.processes] == [True] * len(STARTED)
    status = json.loads(run("status", "--json").stdout)
    assert [row["condition"] for row in status["programs"]] == ["ready"] * len(STARTED)

    assert run("down").returncode == 0
    assert [process.identity.is_alive() for process in state.processes] == [False] * len(STARTED)
    assert read_state(built / "stack" / "run") is None
    assert state.log("jaeger").read_text(encoding="utf-8") == "jaeger says hello\n"
    assert run("status").returncode == 3


def test_up_twice_is_one_stack(built: Path) -> None:
    """The second `up` prints what the first printed."""
    first, before = run("up"), running(built)
    second, after = run("up"), running(built)
    assert (first.returncode, second.returncode) == (0, 0)
    assert second.stdout == first.stdout
    assert after.processes == before.processes


def test_up_replaces_a_stack_of_which_a_part_is_gone(built: Path) -> None:
    """Half a stack is stopped and a whole one started."""
    run("up")
    before = running(built)
    os.kill(before.processes[0].identity.pid, signal.SIGKILL)
    eventually("the program is gone", lambda: not before.processes[0].identity.is_alive())
    assert run("status").returncode == 3
    assert run("up").returncode == 0
    after = running(built)
    assert [process.identity.is_alive() for process in before.processes] == [False] * len(STARTED)
    assert [process.identity.is_alive() for process in after.processes] == [True] * len(STARTED)


def test_a_program_that_ends_at_its_start_is_named_with_the_end_of_its_log(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's last lines are in the message, and the other programs do not stay behind."""
    monkeypatch.setenv("FAKE_OTELCOL", "exits")
    result = run("up")
    assert (result.returncode, result.stdout) == (1, "")
    log = built / "stack" / "run" / "otelcol.log"
    assert f"stack: otelcol ended while it started. The end of {log}:" in result.stderr
    assert result.stderr.endswith("    otelcol says exits\n    no component called surprise\n")
    assert read_state(built / "stack" / "run") is None


def test_an_interrupt_while_it_waits_leaves_nothing_running(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C stops what was started so far."""
    monkeypatch.setenv("FAKE_PROMETHEUS", "unready")
    command = subprocess.Popen([*SCRIPT, "up"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = built / "stack" / "run"
    started = eventually(
        "all were started",
        lambda: read_state(folder),
        lambda state: bool(state and len(state.processes) == len(STARTED)),
    )
    assert started is not None
    command.send_signal(signal.SIGINT)
    output, errors = command.communicate(timeout=60)
    assert (command.returncode, output) == (130, "")
    assert errors.endswith("stack: interrupted\n")
    assert [process.identity.is_alive() for process in started.processes] == [False] * len(STARTED)
    assert read_state(folder) is None


def test_run_gives_the_command_the_addresses_and_returns_its_status(built: Path) -> None:
    """The stack lives exactly as long as the command."""
    script = "import os, sys; print(os.environ['STACK_JAEGER']); sys.exit(7)"
    result = run("run", "--", sys.executable, "-c", script)
    assert result.returncode == 7, result.stderr
    assert result.stdout.startswith("http://127.0.0.1:")
    assert read_state(built / "stack" / "run") is None


def test_run_leaves_a_stack_alone_that_was_up_before(built: Path) -> None:
    """Somebody else is looking at it."""
    run("up")
    before = running(built)
    assert run("run", "--", sys.executable, "-c", "").returncode == 0
    assert [process.identity.is_alive() for process in running(built).processes] == [True] * len(STARTED)
    assert running(built).processes == before.processes


def test_run_of_a_command_that_does_not_exist(built: Path) -> None:
    """The complaint names the command, and the stack is down again."""
    result = run("run", "--", "no-such-command")
    assert result.returncode == 1
    assert "stack: cannot run no-such-command: " in result.stderr
    assert read_state(built / "stack" / "run") is None


def test_a_state_file_that_cannot_be_read_is_an_error_with_a_way_out(built: Path) -> None:
    """We must not start a second stack over a first that we can no longer find."""
    folder = built / "stack" / "run"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"version": 99}', encoding="utf-8")
    for command in ("up", "status", "down"):
        result = run(command)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"stack: {folder / 'state.json'} cannot be read as a state file")
        assert "delete it" in result.stderr
    (folder / "state.json").unlink()


def test_down_spares_a_stranger_that_got_the_number_of_a_program(built: Path) -> None:
    """A process id in the state file that belongs to another process by now is not ours to end."""
    run("up")
    state = running(built)
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        rows = json.loads((state.folder / "state.json").read_text(encoding="utf-8"))
        rows["processes"].append({**rows["processes"][0], "name": "reborn", "pid": stranger.pid})
        (state.folder / "state.json").write_text(json.dumps(rows), encoding="utf-8")
        result = run("down")
        assert result.returncode == 0
        assert f"reborn (pid {stranger.pid}): gone" in result.stderr
        assert Identity.of(stranger.pid) is not None
        assert [process.identity.is_alive() for process in state.processes] == [False] * len(STARTED)
    finally:
        stranger.kill()
        stranger.wait()
