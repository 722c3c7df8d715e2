"""Functions that pools run in these tests, and what a worker's observer writes down where a test can read."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel_concurrency.probes.crossing import Carrier, End
from otel_concurrency.probes.functions import function_name
from otel_concurrency.probes.work import PoolRow, WorkProbe


class RefusedError(Exception):
    """What `fail` raises."""


class NeedsTwoError(Exception):
    """Pickles, and cannot be unpickled: its constructor wants more than `args` has."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} {two}")


def double(number: int) -> int:
    return number * 2


def add(left: int, right: int) -> int:
    return left + right


def fail(number: int) -> int:
    raise RefusedError(number)


def fail_unreadably() -> None:
    raise NeedsTwoError(1, 2)


def return_a_lambda() -> Callable[[], None]:
    return lambda: None


def exit_worker() -> None:
    raise SystemExit(3)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exit_at_once(code: int) -> None:
    os._exit(code)


def wait_for(path: str) -> str:
    """Wait until somebody writes into a named pipe."""
    return Path(path).read_text()


def stack_depth() -> int:
    """Count the frames between this and the worker's loop."""
    callers = [frame.name for frame in reversed(traceback.extract_stack())]
    return min(callers.index(loop) for loop in ("_process_worker", "worker") if loop in callers)


class Diary:
    """An observer that writes a line per item into a file, from whatever process.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        carrier: Carrier,
        pool: str,
        kind: str,
        queue_ns: int,
    ) -> End:
        said = [function_name(function, args), pool, kind, carrier]

        def end(error: BaseException | None, stacktrace: str | None) -> None:
            line = [*said, None if error is None else repr(error), bool(stacktrace), os.getpid()]
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")

        return end

    def entries(self) -> list[list[Any]]:
        """Return what was written, without the process's id."""
        return [entry[:-1] for entry in self._lines()]

    def processes(self) -> set[int]:
        """Return who wrote."""
        return {entry[-1] for entry in self._lines()}

    def _lines(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


def class_name(pool: object) -> str:
    return type(pool).__qualname__


def only_row(probe: WorkProbe) -> PoolRow:
    (row,) = probe.read()
    return row


def counts(probe: WorkProbe) -> dict[str, Any]:
    """Return what a single row counts, zeros left out."""
    row = only_row(probe)
    fields = ("submitted", "finished", "cancelled", "failed", "rejected", "abandoned", "crashes")
    found = {name: getattr(row, name) for name in fields}
    return {
        name: dict(value) if not isinstance(value, int) else value for name, value in found.items() if value
    }
