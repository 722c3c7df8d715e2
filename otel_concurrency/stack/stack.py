"""Up, down and status of all programs together."""

from __future__ import annotations

import fcntl
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from otel_concurrency.stack import process as processes
from otel_concurrency.stack.errors import StackError
from otel_concurrency.stack.go import last_lines
from otel_concurrency.stack.paths import binary_path, missing_binaries
from otel_concurrency.stack.pins import RECIPES
from otel_concurrency.stack.process import Identity, Process
from otel_concurrency.stack.programs import (
    LOOPBACK,
    PROGRAMS,
    USUAL_PORTS,
    Ports,
    Program,
    endpoints,
    program_environ,
)
from otel_concurrency.stack.state import STATE_FILE, State, read_state

# A cold start of all takes a few seconds; a busy machine gets a minute.
READY_S = 60.0
POLL_S = 0.1
REQUEST_S = 5.0

# A failed test session keeps its logs; this long they are worth the room.
KEEP_LOGS_S = 24 * 3600.0

# A port found free can be taken before the program binds it; then all ports are chosen anew.
ATTEMPTS = 3
TAKEN = ("address already in use", "bind: ")

# No proxy stands between us and loopback.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


STARTED = frozenset(program.name for program in PROGRAMS)


def up(
    stack: Path,
    folder: Path,
    tell: Callable[[str], None],
    *,
    owner: Identity | None = None,
    usual_ports: bool = False,
) -> State:
    """Start what `build` built and wait until all of it is ready.

    A stack that already runs from `folder` is returned as it is.

    Args:
        stack: The stack's folder in the cache.
        folder: State folder; one running stack each.
        tell: Receives progress.
        owner: Process that the stack belongs to; see `sweep`.
        usual_ports: Take the ports where people look first, as far as they are free; else any.

    Raises:
        StackError: Binaries are missing, or a program ended or did not become ready; nothing is left running.
    """
    if missing := missing_binaries(stack, only=STARTED):
        names = ", ".join(f"{recipe.name} {recipe.version}" for recipe in missing)
        raise StackError(f"not built yet: {names}. Build once with: otel-concurrency stack build")
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        if state := read_state(folder):
            if sum(process.identity.is_alive() for process in state.processes) == len(PROGRAMS):
                _wait_until_ready(state)
                tell("already up")
                return state
            tell("a part of the last stack is gone; starting again")
            _stop_all(state, tell)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _start_all(stack, folder, tell, owner, _free_ports(usual_ports))
            except _PortTakenError:
                if attempt == ATTEMPTS:
                    raise
                tell("a port was taken meanwhile; choosing others")
    raise AssertionError("unreachable")


def down(folder: Path, tell: Callable[[str], None]) -> list[str]:
    """Stop what `up` started from `folder`, and nothing else; return a line for each program.

    Raises:
        StackError: The state file cannot be read, or a program would not end.
    """
    if not (folder / STATE_FILE).exists():
        return []
    with _only_one(folder):
        state = read_state(folder)
        return [] if state is None else _stop_all(state, tell)


def status(folder: Path) -> list[tuple[Process, str]]:
    """Return each started program with `ready`, `not ready` or `ended`."""
    state = read_state(folder)
    if state is None:
        return []
    return [(process, _condition(process, state)) for process in state.processes]


def sweep(sessions: Path, tell: Callable[[str], None]) -> None:
    """Stop stacks below `sessions` whose owner is gone, and remove their folders and old logs.

    A test run that was killed cannot stop its stack; the next one does.
    """
    for folder in sorted(sessions.iterdir()) if sessions.is_dir() else []:
        try:
            state = read_state(folder)
            if state is None:  # logs that a session kept, or one that is about to start
                if time.time() - folder.stat().st_mtime > KEEP_LOGS_S:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            if state.owner is None or state.owner.is_alive():
                continue
            _stop_all(state, tell)
        except StackError as error:
            tell(str(error))
            continue
        shutil.rmtree(folder, ignore_errors=True)


class _PortTakenError(StackError):
    pass


def _start_all(
    stack: Path, folder: Path, tell: Callable[[str], None], owner: Identity | None, ports: Ports
) -> State:
    ready_urls = {program.name: program.ready_urls(ports) for program in PROGRAMS}
    state = State(folder, endpoints(ports), ready_urls, owner=owner)
    binaries = {recipe.name: binary_path(recipe, stack) for recipe in RECIPES}
    with ExitStack() as undo:
        # Registered before the first start and reading the latest state: Ctrl-C at any point leaves nothing.
        undo.callback(lambda: _stop_all(state, tell))
        for program in PROGRAMS:
            with processes.signals_later():
                state = state.with_process(_start(program, binaries[program.name], ports, state))
                state.write()
        _wait_until_ready(state)
        undo.pop_all()
    tell(f"up: {', '.join(process.name for process in state.processes)}; logs in {folder}")
    return state


def _start(program: Program, binary: Path, ports: Ports, state: State) -> Process:
    data = state.folder / f"{program.name}-data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    command, environ = [str(binary), *program.arguments(ports, data)], program_environ(program, ports, data)
    try:
        return processes.start(program.name, command, environ, cwd=data, log=state.log(program.name))
    except OSError as error:
        raise StackError(
            f"{program.name} cannot be started: {error}. Delete {binary.parent}, and build it once more:"
            " otel-concurrency stack build"
        ) from error


def _wait_until_ready(state: State) -> None:
    deadline = time.monotonic() + READY_S
    for process in state.processes:
        while (condition := _condition(process, state)) != "ready":
            if condition == "ended":
                log = last_lines(process.log)
                error = _PortTakenError if any(word in log for word in TAKEN) else StackError
                raise error(f"{process.name} ended while it started. The end of {process.log}:\n{log}")
            if time.monotonic() > deadline:
                asked = ", ".join(state.ready_urls[process.name])
                raise StackError(
                    f"{process.name} was not ready within {READY_S:.0f} s (asked {asked})."
                    f" The end of {process.log}:\n{last_lines(process.log)}"
                )
            time.sleep(POLL_S)


def _condition(process: Process, state: State) -> str:
    if not process.identity.is_alive():
        return "ended"
    return "ready" if all(map(_answers, state.ready_urls[process.name])) else "not ready"


def _answers(url: str) -> bool:
    try:
        with _open(url, timeout=REQUEST_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _stop_all(state: State, tell: Callable[[str], None]) -> list[str]:
    """Stop in reverse: the collector first, so that it can still deliver what it holds."""
    outcomes = [(process, processes.stop(process)) for process in reversed(state.processes)]
    lines = [f"{process.name} (pid {process.identity.pid}): {outcome}" for process, outcome in outcomes]
    if any(outcome == "stuck" for _, outcome in outcomes):
        raise StackError(f"not everything would end, even when killed: {'; '.join(lines)}")
    for line in lines:
        tell(line)
    for process in state.processes:
        shutil.rmtree(state.folder / f"{process.name}-data", ignore_errors=True)
    state.remove()
    return lines


def _free_ports(usual: bool) -> dict[str, int]:
    with ExitStack() as held:  # all at once, or the system may hand out one twice
        ports = {}
        for name, number in USUAL_PORTS.items():
            listener = held.enter_context(socket.socket())
            # A port that a stack had a minute ago is no longer in use, though the system remembers it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, number if usual else 0))
            except OSError:
                listener.bind((LOOPBACK, 0))
            ports[name] = int(listener.getsockname()[1])
        return ports


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another command starts or stops the stack in {folder}; try again") from None
        yield
