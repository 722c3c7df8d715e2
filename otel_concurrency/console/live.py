"""What programs do now: those of this user that offer their endpoints, asked for a snapshot.

Programs are found in the user's own directory of them, never by a URL that telemetry names: whoever sends
telemetry would else decide whom we ask.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from otel_concurrency.console.queries.scope import Scope
from otel_concurrency.endpoints.client import AskError, Program, programs
from otel_concurrency.snapshot import Snapshot

MAX_PROGRAMS = 8
MAX_TASKS = 500
TIMEOUT_S = 3.0
FRESH_S = 1.0
"""For so long an answer serves all browser tabs."""


@dataclass(frozen=True, slots=True)
class Live:
    """A program that can be asked, and what it answered.

    Attributes:
        service: Its `service.name`.
        instance: Its `service.instance.id`.
        pid: Its process.
        snapshot: What it does now; none if it did not say.
        problem: Why it did not; empty if it did.
    """

    service: str
    instance: str
    pid: int
    snapshot: Snapshot | None = None
    problem: str = ""

    @property
    def title(self) -> str:
        """Say which it is."""
        return f"{self.service or 'a program'}, process {self.pid}"


_answers: dict[str, tuple[float, Live]] = {}
_lock = threading.Lock()


def live_programs(scope: Scope) -> list[Live]:
    """Return the programs of a scope's services and instances with what they do now, by service."""
    found = [program for program in programs() if _is_meant(program, scope)][:MAX_PROGRAMS]
    if not found:
        return []
    with ThreadPoolExecutor(len(found), thread_name_prefix="console-ask") as pool:
        told = list(pool.map(_ask, found))
    return sorted(told, key=lambda it: (it.service, it.pid))


def _is_meant(program: Program, scope: Scope) -> bool:
    entry = program.entry
    return (
        entry is not None
        and (not scope.services or entry.service in scope.services)
        and (not scope.instances or entry.instance in scope.instances)
    )


def _ask(program: Program) -> Live:
    with _lock:
        known = _answers.get(program.url)
    if known is not None and time.monotonic() - known[0] < FRESH_S:
        return known[1]
    entry = program.entry
    assert entry is not None
    who = (entry.service, entry.instance, entry.pid)
    try:
        data = program.ask("/debug/snapshot", timeout_s=TIMEOUT_S, limit=MAX_TASKS)
        answer = Live(*who, Snapshot.from_data(data))
    except AskError as error:
        answer = Live(*who, problem=str(error))
    except (TypeError, ValueError, LookupError) as error:
        answer = Live(*who, problem=f"its answer is of another version: {error!r}")
    with _lock:
        if len(_answers) > 4 * MAX_PROGRAMS:
            _answers.clear()
        _answers[program.url] = (time.monotonic(), answer)
    return answer
