"""`otel-concurrency run` and `console`: the program is as it is under `opentelemetry-instrument`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_concurrency.commands.run import elsewhere, instrumented, service_name
from otel_concurrency.console import registry
from otel_concurrency.console.settings import ConsoleSettings

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")
PATIENCE_S = 100.0
SCRIPTS = Path(sysconfig.get_path("scripts"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return an environment where nobody else's console is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    place = str(tmp_path_factory.mktemp("runtime"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", place)
        yield kept | {"XDG_RUNTIME_DIR": place}


@pytest.fixture(scope="module")
def console(environment: dict[str, str]) -> Iterator[registry.RunningConsole]:
    """A console on free ports, in the background."""
    ports = ["--port=0", "--http-port=0", "--grpc-port=0"]
    done = command(environment, "console", "--background", *ports)
    assert done.returncode == 0, done.stderr
    running = registry.find()
    assert running is not None
    yield running
    assert command(environment, "console", "--stop").returncode == 0
    assert registry.find() is None


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "otel_concurrency.cli", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


def wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stored(console: registry.RunningConsole, table: str) -> int:
    with urllib.request.urlopen(f"{console.settings.url}console/state", timeout=PATIENCE_S) as response:
        return int(json.load(response)["counts"][table]["received"])


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    def write(code: str) -> str:
        path = tmp_path / "app.py"
        path.write_text(textwrap.dedent(code))
        return str(path)

    return write


def test_what_it_runs_is_seen_in_the_console(
    console: registry.RunningConsole, environment: dict[str, str], program: Callable[[str], str]
) -> None:
    """The exit code is the program's; the console found stays, and a second one is not started."""
    app = program("""
        import logging, sys
        logging.getLogger().error("here")
        sys.exit(3)
    """)
    done = command(environment, "run", "--", sys.executable, app, "--flag")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[0] == f"The console: {console.settings.url}"
    wait_for(lambda: stored(console, "logs") >= 1)
    again = command(environment, "console")
    assert (again.returncode, again.stderr) == (0, f"A console runs already: {console.settings.url}\n")


def test_the_program_gets_what_opentelemetry_instrument_gives(
    console: registry.RunningConsole, environment: dict[str, str], program: Callable[[str], str]
) -> None:
    """Variables other than OTEL_*, arguments, signals, open files and children are the same."""
    app = program("""
        import json, os, signal, sys
        import psutil
        files = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
        known = signal.valid_signals()
        ignored = sorted(number for number in known if signal.getsignal(number) is signal.SIG_IGN)
        family = len(psutil.Process().children()), os.getppid(), os.getpgid(0), os.getsid(0)
        names = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        print(json.dumps([names, sys.argv, files, ignored, family]))
    """)
    pointed = environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": console.settings.http_endpoint}
    plain = [str(SCRIPTS / "opentelemetry-instrument"), sys.executable, app, "a", "--xyz"]
    ours = [str(SCRIPTS / "otel-concurrency"), "run", sys.executable, app, "a", "--xyz"]
    told = [
        subprocess.run(line, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        for line, env in ((plain, pointed), (ours, environment))
    ]
    assert [it.returncode for it in told] == [0, 0], told
    assert json.loads(told[0].stdout) == json.loads(told[1].stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_program_and_its_death_is_its_own(
    number: signal.Signals,
    console: registry.RunningConsole,
    environment: dict[str, str],
    program: Callable[[str], str],
) -> None:
    app = program("""
        import os, signal, time
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(os.getpid(), flush=True)
        time.sleep(600)
    """)
    line = [sys.executable, "-m", "otel_concurrency.cli", "run", sys.executable, app]
    with subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            assert int(process.stdout.readline()) == process.pid
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == -number
        finally:
            process.kill()
    assert registry.find() == console


def test_a_note_of_a_console_that_died_is_not_believed(
    environment: dict[str, str], console: registry.RunningConsole
) -> None:
    registry_note = registry.folder() / registry.NOTE
    noted = json.loads(registry_note.read_text())
    registry_note.write_text(json.dumps(noted | {"pid": 1}))
    assert registry.find() is None
    registry_note.write_text("{")
    assert registry.find() is None
    registry_note.write_text(json.dumps(noted))
    assert registry.find() == console


def test_live_it_answers_what_it_does_now(
    console: registry.RunningConsole, environment: dict[str, str], program: Callable[[str], str]
) -> None:
    app = program("""
        import os
        print(os.environ["OTEL_PYTHON_CONCURRENCY_HTTP_PORT"])
    """)
    done = command(environment, "run", "--live", sys.executable, app, "--live")
    assert (done.returncode, done.stdout) == (0, "0\n")


def test_a_program_has_to_be_named(environment: dict[str, str]) -> None:
    done = command(environment, "run", "--")
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["otel-concurrency run: which program? Such as: otel-concurrency run python app.py"],
    )


HERE = ConsoleSettings(http_endpoint="http://127.0.0.1:4318", grpc_endpoint="http://127.0.0.1:4317")


@pytest.mark.parametrize(
    ("given", "endpoint", "protocol", "name"),
    [
        ({}, HERE.http_endpoint, "http/protobuf", "app"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, HERE.grpc_endpoint, "grpc", "app"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, "http://x:4317", None, "app"),
        ({"OTEL_SERVICE_NAME": "mine"}, HERE.http_endpoint, "http/protobuf", "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=c"}, HERE.http_endpoint, "http/protobuf", None),
    ],
)
def test_what_the_user_set_stands(
    given: dict[str, str], endpoint: str, protocol: str | None, name: str | None
) -> None:
    seen = instrumented(given, HERE, ["python", "app.py"])
    assert seen | given == seen
    assert seen["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
    assert seen.get("OTEL_EXPORTER_OTLP_PROTOCOL") == protocol
    assert seen.get("OTEL_SERVICE_NAME") == name
    assert "OTEL_PYTHON_CONCURRENCY_HTTP_PORT" not in seen


def test_a_python_of_another_place_is_told_of(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("")
    other.chmod(0o755)
    ours = Path(sys.executable)
    assert elsewhere("python", str(tmp_path)) == (
        f"python is {other}, which may lack otel-concurrency; it is installed for {ours}"
    )
    same = tmp_path / "same"
    same.mkdir()
    (same / "python3").symlink_to(ours)
    assert elsewhere("python3", str(same)) == ""
    assert elsewhere("python3", str(ours.parent)) == ""
    assert elsewhere(str(other), str(tmp_path)) == ""
    assert elsewhere("python", str(tmp_path / "empty")) == ""


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("python app.py --x", "app"),
        ("/usr/bin/python3.11 -u -W error -m shop.web --port 1", "shop.web"),
        ("uvicorn app:app", "uvicorn"),
        ("python", "python"),
        ("python -c pass", "python"),
    ],
)
def test_a_service_goes_by_what_people_call_it(line: str, name: str) -> None:
    assert service_name(line.split()) == name
