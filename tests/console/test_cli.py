"""The command: its usage, what it says without an extra, and `receive` from start to Ctrl-C."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_concurrency import __version__
from otel_concurrency.cli import main
from otel_concurrency.console import Store


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["receive", "--http-port", "65536"], "65536 is no port"),
        (["receive", "--grpc-port", "x"], "invalid port value: 'x'"),
        (["demo", "--requests", "0"], "0 is less than 1"),
    ],
)
def test_wrong_usage_is_named(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["receive", "--help"]])
def test_help_is_there(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: otel-concurrency")


def test_the_version_costs_no_import() -> None:
    """Neither OpenTelemetry nor the console is loaded before a command needs it."""
    done = run_python("""
        import sys
        from otel_concurrency.cli import main
        try:
            main(["--version"])
        except SystemExit:
            heavy = {"opentelemetry", "duckdb", "grpc", "uvicorn", "starlette", "fastapi"}
            print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
    """)
    assert done.stdout.splitlines() == [f"otel-concurrency {__version__}", "[]"]


@pytest.mark.parametrize("package", ["duckdb", "grpc", "starlette", "uvicorn", "opentelemetry.proto"])
def test_without_the_extra_one_line_says_what_to_install(package: str) -> None:
    done = run_python(f"""
        import sys
        sys.modules[{package!r}] = None  # what a missing package looks like
        from otel_concurrency.cli import main
        sys.exit(main(["receive", "--http-port", "0", "--grpc-port", "0"]))
    """)
    remedy = r"which is not installed: pip install 'otel-concurrency\[console\]'\n"
    assert re.fullmatch(rf"the console needs {package}[\w.]*, {remedy}", done.stderr)
    assert (done.returncode, done.stdout) == (2, "")


def test_importing_the_console_without_the_extra_says_so_too() -> None:
    done = run_python("""
        import sys
        sys.modules["duckdb"] = None
        from otel_concurrency.console import Store
    """)
    complaint = "the console needs duckdb, which is not installed: pip install 'otel-concurrency[console]'"
    assert done.stderr.splitlines()[-1] == f"ImportError: {complaint}"


@pytest.mark.parametrize("package", ["aiohttp", "fastapi"])
def test_without_the_demo_extra_one_line_says_what_to_install(package: str) -> None:
    done = run_python(f"""
        import importlib.util, sys
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find_spec(name, *rest)
        from otel_concurrency.cli import main
        sys.exit(main(["demo"]))
    """)
    complaint = f"the demo needs {package}, not installed: pip install 'otel-concurrency[demo]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", complaint)


Receiving = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def receiving() -> Iterator[Receiving]:
    """Start `otel-concurrency receive …` in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "otel_concurrency.cli", "receive", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def endpoints(process: subprocess.Popen[str]) -> tuple[list[str], dict[str, str]]:
    """Read what a receiver says until it is ready: its other lines, and its endpoints by protocol."""
    said: list[str] = []
    found: dict[str, str] = {}
    assert process.stderr is not None
    while "grpc" not in found:
        line = process.stderr.readline()
        assert line, "it ended early"
        match = re.search(r"OTEL_EXPORTER_OTLP_ENDPOINT=(\S+) OTEL_EXPORTER_OTLP_PROTOCOL=(\S+)", line)
        if match:
            found[match[2]] = match[1]
        else:
            said.append(line.rstrip())
    return said, found


def export_a_span(endpoint: str) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint, insecure=True)))
    provider.get_tracer("t").start_span("a span", start_time=1_000_000).end(3_500_000)
    provider.shutdown()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_receive_ends_with_a_summary(number: signal.Signals, receiving: Receiving) -> None:
    process = receiving("--http-port", "0", "--grpc-port", "0")
    said, found = endpoints(process)
    assert said == ["Receiving until Ctrl-C. Set one of these where the telemetry is made:"]
    assert list(found) == ["http/protobuf", "grpc"]
    export_a_span(found["grpc"])
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "shop: a span  2.50 ms" in out
    assert "No task table: no asyncio.task.* metrics came" in out
    assert out.splitlines()[-1] == "Received: 1 spans, 0 log records, 0 data points."
    assert "\x1b" not in out


def test_receive_says_which_port_it_takes_instead(receiving: Receiving) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = receiving("--http-port", str(port), "--grpc-port", "0")
        said, found = endpoints(process)
    taken = f"port {port} is taken: trying {port + 1} for OTLP/http"
    assert said[0] == taken
    assert found["http/protobuf"] != f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_receive_keeps_a_file_if_asked(receiving: Receiving, tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    process = receiving("--http-port", "0", "--grpc-port", "0", "--file", str(path))
    export_a_span(endpoints(process)[1]["grpc"])
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    with Store(path) as store:
        assert store.query("SELECT name FROM spans") == [("a span",)]


def test_receive_says_when_the_file_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 1000)
    assert main(["receive", "--file", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"cannot keep telemetry in {path}: ")
