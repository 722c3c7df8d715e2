"""`otel-concurrency run`: a program under `opentelemetry-instrument`, looked at in the console."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_concurrency.commands.background import console_command, console_environment
from otel_concurrency.commands.saying import say
from otel_concurrency.console import registry
from otel_concurrency.console.settings import ConsoleSettings

if TYPE_CHECKING:
    import argparse

    from otel_concurrency.commands.stopping import StopRequest

SOON_MS = {
    "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    "OTEL_BSP_SCHEDULE_DELAY": "1000",
    "OTEL_BLRP_SCHEDULE_DELAY": "1000",
}
"""Somebody is watching: not after a minute."""


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    import argparse

    run_parser = commands.add_parser(
        "run",
        help="run a program instrumented, and look at it in the browser",
        usage="otel-concurrency run [--live] [--] PROGRAM [ARGUMENT ...]",
        description="Start the console if none runs, and run a program under opentelemetry-instrument, "
        "pointed at it. OTEL_* variables that are set stand. The console stays, until "
        "`otel-concurrency console --stop`.",
    )
    run_parser.add_argument(
        "--live",
        action="store_true",
        help="also have it answer, on loopback, what its tasks and threads do now: pages show it",
    )
    run_parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="PROGRAM", help="such as: python app.py"
    )
    run_parser.set_defaults(run=run)


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """Become the program; signals and exit code are its own, since the process is."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        say("otel-concurrency run: which program? Such as: otel-concurrency run python app.py")
        return 2
    instrument = Path(sysconfig.get_path("scripts")) / "opentelemetry-instrument"
    if not instrument.exists():
        say(f"there is no {instrument}; install otel-concurrency with pip into this Python")
        return 2
    with registry.starting():
        running = registry.find()
        if running is None:
            # It starts the console as its own child and ends: the program is to have no child of ours.
            started = subprocess.run(console_command(["--background"]), env=console_environment())
            if started.returncode:
                return started.returncode
            running = registry.find()
        else:
            say(f"The console: {running.settings.entrance}")
    if running is None:
        say("The console started, and went away again.")
        return 1
    stop.check()
    if told := elsewhere(command[0], os.environ.get("PATH")):
        say(told)
    environment = instrumented(os.environ, running.settings, command, is_live=options.live)
    endpoint = environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
    if endpoint not in (running.settings.http_endpoint, running.settings.grpc_endpoint):
        say(f"OTEL_EXPORTER_OTLP_ENDPOINT is set: telemetry goes to {endpoint}, not to the console")
    sys.stdout.flush()
    line = [str(instrument), *command]
    if os.name != "nt":  # there, a process that becomes another one has ended for whoever waits for it
        os.execve(line[0], line, environment)
    return subprocess.run(line, env=environment).returncode


def instrumented(
    environ: Mapping[str, str], settings: ConsoleSettings, command: Sequence[str], *, is_live: bool = False
) -> dict[str, str]:
    """Return a program's environment, pointed at a console where it does not say otherwise.

    Args:
        environ: The surrounding one.
        settings: The console's.
        command: The program and its arguments.
        is_live: Whether the program is to answer what it does now.
    """
    is_grpc = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc"
    wanted = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": settings.grpc_endpoint if is_grpc else settings.http_endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        **SOON_MS,
    }
    if is_live:
        wanted["OTEL_PYTHON_CONCURRENCY_HTTP_PORT"] = "0"
    if "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        wanted["OTEL_SERVICE_NAME"] = service_name(command)
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in environ:
        del wanted["OTEL_EXPORTER_OTLP_PROTOCOL"]  # the two belong together
    return wanted | dict(environ)


def elsewhere(program: str, path: str | None) -> str:
    """Return a warning where a bare `python` is another one than ours: it will not find us. Else nothing."""
    found = shutil.which(program, path=path) if program in ("python", "python3") else None
    ours = Path(sys.executable)
    if found is None or Path(found).parent == ours.parent or os.path.samefile(found, ours):
        return ""
    return f"{program} is {found}, which may lack otel-concurrency; it is installed for {ours}"


def service_name(command: Sequence[str]) -> str:
    """Return what people would call a program: its file or module, not its interpreter."""
    program = Path(command[0]).name
    if not program.startswith(("python", "pypy")):
        return program
    rest = iter(command[1:])
    for word in rest:
        if word == "-m":
            return next(rest, program)
        if word == "-c":
            return program
        if not word.startswith("-"):
            return Path(word).stem
        if word in ("-W", "-X"):
            next(rest, None)
    return program
