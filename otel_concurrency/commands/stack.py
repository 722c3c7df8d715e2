"""`otel-concurrency stack`: collector, Jaeger, Prometheus and Loki on this machine, without Docker."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from otel_concurrency.commands.saying import say

if TYPE_CHECKING:
    from types import FrameType

    from otel_concurrency.commands.stopping import StopRequest
    from otel_concurrency.stack.process import Process

# What a shell returns when nothing of it runs, after `systemctl status`.
NOT_RUNNING = 3

DESCRIPTION = """\
The real backend without Docker: OpenTelemetry Collector, Jaeger v2, Prometheus and Loki, with the
configuration that docker-compose.yml runs.

    otel-concurrency stack up             build what is missing, start all, and say where they are
    eval "$(otel-concurrency stack up)"   the same, and this shell's services export to it
    otel-concurrency stack status
    otel-concurrency stack down
    otel-concurrency stack run -- CMD …   start, run a command that exports to it, stop; its exit status

It is built once, from the Go module proxy: that needs Go 1.26, some 20 minutes on two cores and 10 GiB, of
which 0.4 GiB stay in $OTEL_CONCURRENCY_CACHE (default ~/.cache/otel-concurrency). Everything listens on
loopback, on the usual ports where those are free. Progress goes to standard error; standard output is for
machines. The user interfaces of Jaeger and Prometheus are in no Go module: what is there are their APIs.
"""


def add_to(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "stack",
        help="build, start and stop collector, Jaeger, Prometheus and Loki without Docker",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="commands", required=True, metavar="up|down|status|build|run")
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state",
        metavar="FOLDER",
        help="of the state file, logs and data; one running stack each (run/ in the cache)",
    )
    up = argparse.ArgumentParser(add_help=False, parents=[state])
    up.add_argument("--no-build", action="store_true", help="fail where something is not built yet")

    action = actions.add_parser("up", parents=[up], help="start all; print exports for a shell")
    action.set_defaults(action=_up)
    action = actions.add_parser("down", parents=[state], help="stop what `up` started")
    action.set_defaults(action=_down)
    what = f"tell what runs, and where; exit status {NOT_RUNNING} unless all does"
    action = actions.add_parser("status", parents=[state], help=what)
    action.add_argument("--json", action="store_true", help="print one JSON object")
    action.set_defaults(action=_status)
    what = "build what is missing, with what tests need beside what `up` starts"
    action = actions.add_parser("build", help=what)
    action.add_argument("--keep-caches", action="store_true", help="keep Go's caches for the next version")
    action.set_defaults(action=_build)
    action = actions.add_parser("run", parents=[up], help="run a command beside the stack")
    action.add_argument("command", nargs="+", metavar="-- CMD", help="the command and its arguments")
    action.set_defaults(action=_run)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    """Run one of the actions."""
    if os.name != "posix":
        say("stack: this needs Linux or macOS; docker-compose.yml runs the same backend anywhere")
        return 2
    from otel_concurrency.stack.errors import StackError

    try:
        with _interruptible():
            return int(options.action(options))
    except StackError as error:
        say(f"stack: {error}")
        return 1
    except KeyboardInterrupt:
        say("stack: interrupted")
        return 130


def tell(line: str) -> None:
    """Print progress where it does not mix with what a shell evaluates."""
    say(f"[stack] {line}")


def _build(options: argparse.Namespace) -> int:
    from otel_concurrency.stack.build import build
    from otel_concurrency.stack.paths import stack_folder

    build(stack_folder(), tell, keep_caches=options.keep_caches)
    return 0


def _up(options: argparse.Namespace) -> int:
    from otel_concurrency.stack import stack
    from otel_concurrency.stack.paths import stack_folder

    _build_missing(options)
    state = stack.up(stack_folder(), _state(options), tell, usual_ports=True)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in state.exports().items()]
    if sys.stdout.isatty():
        say('these are for a shell, eval "$(otel-concurrency stack up)":')
    print("\n".join(exports))
    return 0


def _down(options: argparse.Namespace) -> int:
    from otel_concurrency.stack import stack

    if not stack.down(_state(options), tell):
        tell("nothing to stop")
    return 0


def _status(options: argparse.Namespace) -> int:
    from otel_concurrency.stack import stack
    from otel_concurrency.stack.paths import missing_binaries, stack_folder
    from otel_concurrency.stack.state import read_state

    rows = stack.status(_state(options))
    state = read_state(_state(options))
    endpoints = {} if state is None else state.endpoints
    missing = [recipe.name for recipe in missing_binaries(stack_folder())]
    if options.json:
        programs = [{**process.to_json(), "condition": condition} for process, condition in rows]
        print(json.dumps({"programs": programs, "endpoints": endpoints, "not_built": missing}))
    else:
        _print_status(rows, endpoints, missing)
    return 0 if rows and all(condition == "ready" for _, condition in rows) else NOT_RUNNING


def _print_status(rows: list[tuple[Process, str]], endpoints: dict[str, str], missing: list[str]) -> None:
    from otel_concurrency.stack.pins import RECIPES
    from otel_concurrency.stack.stack import STARTED

    conditions = {
        process.name: f"{condition:<11}pid {process.identity.pid:<8}{process.log}"
        for process, condition in rows
    }
    for recipe in RECIPES:
        idle = "stopped" if recipe.name in STARTED else "built"
        stopped = "not built" if recipe.name in missing else idle
        print(f"{recipe.name:<11}{recipe.version:<9}{conditions.get(recipe.name, stopped)}")
    for name, address in endpoints.items():
        print(f"{name:<11}{address}")


def _run(options: argparse.Namespace) -> int:
    """Run a command beside the stack; what was up before stays up."""
    from otel_concurrency.stack import stack
    from otel_concurrency.stack.errors import StackError
    from otel_concurrency.stack.paths import stack_folder
    from otel_concurrency.stack.process import Identity

    _build_missing(options)
    was_up = bool(stack.status(_state(options)))
    owner = Identity.of(os.getpid())
    state = stack.up(stack_folder(), _state(options), tell, owner=owner, usual_ports=True)
    try:
        child = subprocess.Popen(options.command, env={**os.environ, **state.exports()})
    except OSError as error:
        raise StackError(f"cannot run {options.command[0]}: {error}") from error
    else:
        return _wait_for(child)
    finally:
        if not was_up:
            stack.down(_state(options), tell)


def _wait_for(child: subprocess.Popen[bytes]) -> int:
    """Return the child's exit status as a shell would give it, passing an interrupt on to it."""
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        try:
            code = child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
    return code if code >= 0 else 128 - code


def _build_missing(options: argparse.Namespace) -> None:
    from otel_concurrency.stack.build import build
    from otel_concurrency.stack.paths import missing_binaries, stack_folder
    from otel_concurrency.stack.stack import STARTED

    if not options.no_build and (missing := missing_binaries(stack_folder(), only=STARTED)):
        names = ", ".join(recipe.name for recipe in missing)
        tell(f"not built yet: {names}. That is done once, and takes minutes; Ctrl-C stops it, and the next")
        tell("`up` goes on from there")
        build(stack_folder(), tell, only=STARTED)


def _state(options: argparse.Namespace) -> Path:
    from otel_concurrency.stack.paths import stack_folder

    return Path(options.state).resolve() if options.state else stack_folder() / "run"


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal raise at once: a build can be in a long step.

    `stack.up` holds them back by itself between the birth of a program and the note of it.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    before = {number: signal.signal(number, _interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
